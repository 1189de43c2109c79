"""Damaged files end in a tfopt error or are read; they end or hang no process. `fuzz.py` sends more of them."""

from __future__ import annotations

from pathlib import Path
from random import Random

import fuzz_processes
import pytest
from fuzz import broken_rules, fuzz, summary
from fuzz_mutations import mutated_archive, mutated_bytes, mutated_text
from fuzz_readers import READERS, FileReader, mutation

LIGHT = ("recipe", "batching", "npz")
"""Whose process starts without TensorFlow."""
TOLD = ("monitoring", "compose", "kubernetes", "warmup")
"""Whose problems are listed, not raised."""
COUNTS = {"tflite_run": 20, "keras": 100, "tflite_inspected": 100}
"""Each of the first may be a process more, and those of TensorFlow take a while."""
LEFT_TO_THE_SCRIPT = ("tflite_predicted", "tf_keras", "coded", "warmup", "h5", "tf_keras_h5")
"""Whose process takes longer to start than its files to read; and HDF5, which a rare file keeps busy for ever."""


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("samples")


@pytest.mark.parametrize("reader", LIGHT)
def test_damaged_files_of_light_readers(reader: str, samples: Path) -> None:
    readings = fuzz(reader, samples, 60)
    assert broken_rules(readings) == []
    assert summary(readings)["refused"] > 10


@pytest.mark.slow
@pytest.mark.parametrize("reader", [reader for reader in READERS if reader not in LEFT_TO_THE_SCRIPT])
def test_damaged_files_of_more_readers(reader: str, samples: Path) -> None:
    readings = fuzz(reader, samples, COUNTS.get(reader, 200), begin=1000)
    assert broken_rules(readings) == []
    assert reader in TOLD or summary(readings)["refused"] > 0


@pytest.mark.parametrize("mutate", [mutated_bytes, mutated_text, mutated_archive])
def test_a_number_gives_the_same_damaged_file_again(mutate) -> None:  # type: ignore[no-untyped-def]
    name = {mutated_bytes: "report", mutated_text: "recipe", mutated_archive: "npz"}[mutate]
    contents = READERS["npz" if mutate is mutated_archive else "recipe"].samples()
    first, again = ([mutate(contents[0], contents[1], Random(f"{name} {seed}")) for seed in range(50)] for _ in "ab")
    assert first == again
    assert sum(one != contents[0] for one in first) > 45
    assert len(set(first)) > 40
    assert mutation("recipe", READERS["recipe"].samples(), 3) == mutation("recipe", READERS["recipe"].samples(), 3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("code", "outcome", "said"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "crash", "SIGSEGV"),
        ("import os; os._exit(0)", "crash", "exit code 0"),
        ("while True: pass", "hang", "SIGXCPU"),
        ("import time; time.sleep(1000)", "hang", "SIGKILL"),
        ("raise KeyError('no tfopt error')", "other", "KeyError: 'no tfopt error'"),
        ("raise TfoptError('refused')", "refused", "TfoptError: refused"),
        ("pass", "accepted", ""),
    ],
)
def test_what_becomes_of_a_process_is_seen(code, outcome, said, samples, tmp_path, monkeypatch) -> None:
    """The fourth damaged file does what a reader might; those before and behind it are read."""
    script = tmp_path / "fuzz_processes.py"
    folder = Path(fuzz_processes.__file__).parent
    script.write_text(
        f"import sys; sys.path.insert(0, {str(folder)!r})\n"
        "import fuzz_processes\nfrom fuzz_readers import READERS, FileReader\nfrom tfopt.errors import TfoptError\n"
        "fuzz_processes.HANG_SECONDS = 1\nnumber = 0\n"
        "def read(path):\n    global number\n    number += 1\n"
        f"    if number == 5 and sys.argv[3] == '0':\n        {code}\n"
        "READERS['recipe'] = FileReader('a', READERS['recipe'].samples, READERS['recipe'].mutate, read)\n"
        "fuzz_processes.main(*sys.argv[1:])\n"
    )
    monkeypatch.setattr(fuzz_processes, "__file__", str(script))
    monkeypatch.setattr(fuzz_processes, "SILENT_SECONDS", 4)
    readings = fuzz("recipe", samples, 6)
    assert [reading.index for reading in readings] == list(range(6))
    assert [reading.outcome for reading in readings if reading.index != 3] == ["accepted"] * 5
    assert (readings[3].outcome, readings[3].said) == (outcome, said)
    assert (readings[3] in broken_rules(readings)) == (outcome in {"crash", "hang", "other"})


def test_every_reader_has_samples_of_its_own() -> None:
    assert all(isinstance(reader, FileReader) for reader in READERS.values())
    assert {"recipe", "batching", "npz", "keras", "tflite_inspected", "tflite_run"} <= set(READERS)
