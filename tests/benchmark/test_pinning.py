"""Keeping a thread on a core that is left alone."""

import os

import pytest

from tfopt.benchmark import pinning
from tfopt.benchmark.pinning import QuietCore, on_core


class Machine:
    """Cores whose pace changes, and a clock that a probe moves by the pace of the core that it is kept on.

    Args:
        paces: of each core, what a probe takes, in order; the last stays.
    """

    def __init__(self, monkeypatch, tmp_path, paces, rates=None):
        self.paces = {core: list(durations) for core, durations in paces.items()}
        self.place, self.now, self.slept = set(paces), 0, 0.0
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid: self.place, raising=False)
        monkeypatch.setattr(os, "sched_setaffinity", self.keep, raising=False)
        monkeypatch.setattr(pinning, "CORES", tmp_path)
        monkeypatch.setattr(pinning, "PROBES", 1)
        monkeypatch.setattr(pinning.time, "sleep", self.sleep)
        for core in paces:
            folder = tmp_path / f"cpu{core}" / "cpufreq"
            folder.mkdir(parents=True)
            (folder / "cpuinfo_max_freq").write_text(str((rates or {}).get(core, 3000)))

    def keep(self, pid, cores):
        self.place = set(cores)

    def sleep(self, seconds):
        self.slept += seconds

    def probe(self):
        (core,) = self.place
        durations = self.paces[core]
        self.now += durations.pop(0) if len(durations) > 1 else durations[0]

    def search(self, patience_seconds=1.0):
        return QuietCore(patience_seconds, probe=self.probe, clock=lambda: self.now)


def test_the_core_is_one_of_the_fastest_that_is_quiet(monkeypatch, tmp_path):
    paces = {0: [140], 1: [100], 2: [150], 3: [90]}
    machine = Machine(monkeypatch, tmp_path, paces, rates={3: 2000})
    assert machine.search().find() == 1
    assert machine.place == {0, 1, 2, 3}
    assert machine.slept == 0.0


def test_it_stays_while_it_is_quiet_and_another_takes_its_place(monkeypatch, tmp_path):
    machine = Machine(monkeypatch, tmp_path, {0: [102, 100], 1: [100, 100, 114, 150, 150, 100]})
    search = machine.search()
    assert [search.find() for _ in range(4)] == [1, 1, 0, 0]


def test_it_waits_for_a_quiet_core_but_not_for_ever(monkeypatch, tmp_path):
    machine = Machine(monkeypatch, tmp_path, {0: [100, 140, 140, 140, 100, 140], 1: [110, 150]})
    search = machine.search(patience_seconds=0.1)
    assert search.find() == 0
    assert machine.slept == pytest.approx(3 * pinning.PAUSE_SECONDS)
    assert search.find() == 0
    assert machine.slept == pytest.approx(0.1)


def test_a_turn_that_was_disturbed_is_to_be_repeated_as_long_as_there_is_patience(monkeypatch, tmp_path):
    machine = Machine(monkeypatch, tmp_path, {0: [100, 100, 150, 100, 110, 100, 150]})
    search = machine.search(patience_seconds=0.1)
    assert search.find() == 0
    assert not search.was_quiet(0.04)
    assert search.find() == 0
    assert search.was_quiet(0.04)
    assert search.find() == 0
    assert not search.was_quiet(0.08)
    assert search.was_quiet(0.08)
    assert machine.slept == 0.0


def test_a_core_that_is_forbidden_is_not_used(monkeypatch):
    def forbid(pid, cores):
        raise PermissionError

    monkeypatch.setattr(os, "sched_setaffinity", forbid, raising=False)
    with on_core(0) as core:
        assert core is None


def test_a_place_is_given_back_after_an_error():
    before = allowed_cores()
    with pytest.raises(ValueError, match="within"), on_core(QuietCore(0.0).find()):
        raise ValueError("within")
    assert allowed_cores() == before


def allowed_cores():
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
