"""A search that several processes share: a chief that chooses, and workers that train."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

SCRIPT = """
import os, time
import keras, numpy as np
from tfopt.tuning import Constraint, tune

x = np.random.default_rng(0).normal(size=(64, 2)).astype("float32")
data = x, x.sum(axis=1)


class Slow(keras.callbacks.Callback):
    def on_train_begin(self, logs=None):
        with open(os.environ["KERASTUNER_TUNER_ID"] + ".txt", "a") as file:
            print(float(self.model.optimizer.learning_rate), file=file)

    def on_epoch_end(self, epoch, logs=None):
        logs["used"] = 0.5
        time.sleep(0.7)


def build(hp):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    rate = hp.Float("rate", 1e-3, 0.1, sampling="log")
    model.compile(keras.optimizers.SGD(rate), "mse", jit_compile=False)
    return model


limit = Constraint("val_loss", "min", used="used")
result = tune(build, data, data, constraint=limit, trials=5, epochs=3, folder="search", callbacks=[Slow()])
print("scores:", sum(row.score is not None for row in result.rows), round(result.model.evaluate(*data, verbose=0), 4))
"""


class Search:
    """Processes of one search."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "script.py").write_text(SCRIPT)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str) -> None:
        place = {"KERASTUNER_ORACLE_IP": "127.0.0.1", "KERASTUNER_ORACLE_PORT": str(self.port)}
        environment = {**os.environ, **place, "KERASTUNER_TUNER_ID": name, "TF_CPP_MIN_LOG_LEVEL": "3"}
        with (self.folder / f"{name}.log").open("ab") as log:
            command = [sys.executable, "script.py"]
            self.processes[name] = subprocess.Popen(
                command, cwd=self.folder, env=environment, stdout=log, stderr=subprocess.STDOUT
            )

    def kill(self, name: str) -> None:
        self.processes[name].send_signal(signal.SIGKILL)
        self.processes[name].wait()

    def begun(self, name: str) -> list[str]:
        """The rates that a worker began to train with."""
        file = self.folder / f"{name}.txt"
        return file.read_text().split() if file.exists() else []

    def statuses(self) -> list[str]:
        files = self.folder.glob("search/trials/trial_*/trial.json")
        return [found[0] for file in files if (found := re.findall(r'"status": "(\w+)"', file.read_text()))]

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()


@pytest.fixture
def search(tmp_path: Path) -> Iterator[Search]:
    search = Search(tmp_path)
    yield search
    for process in search.processes.values():
        process.kill()
        process.wait()


def wait_for(condition: Callable[[], bool], search: Search, seconds: float = 240) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            logs = "\n".join(f"{name}:\n{search.log(name)[-2000:]}" for name in search.processes)
            raise AssertionError(f"it took more than {seconds} s\n{logs}")
        time.sleep(0.1)


@pytest.mark.thorough
def test_processes_share_a_search_and_any_of_them_may_die(search: Search) -> None:
    for name in ("chief", "worker0", "worker1"):
        search.start(name)
    wait_for(lambda: bool(search.begun("worker1")), search)
    search.kill("worker1")
    rate_of_the_killed = search.begun("worker1")[-1]
    count = len(search.begun("worker1"))
    search.start("worker1")
    wait_for(lambda: len(search.begun("worker1")) > count, search)
    assert search.begun("worker1")[count] == rate_of_the_killed  # it has its trial again

    wait_for(lambda: search.statuses().count("COMPLETED") >= 2, search)
    done = search.statuses().count("COMPLETED")
    for name in ("chief", "worker0", "worker1"):  # workers that live on may wait for the chief of before
        search.kill(name)
    for name in ("chief", "worker0", "worker1"):
        search.start(name)
    wait_for(lambda: all(process.poll() is not None for process in search.processes.values()), search)
    assert [process.returncode for process in search.processes.values()] == [0, 0, 0]
    assert done < 5
    assert search.statuses() == ["COMPLETED"] * 5
    assert len(list(search.folder.glob("search/epochs/*.json"))) == 5  # nobody overwrote what another wrote
    chief = search.log("chief").splitlines()[-1].split()
    assert chief[:2] == ["scores:", "5"]
    assert len(set(search.begun("worker0")) | set(search.begun("worker1"))) == 5
    scores = [json.loads(path.read_text())["score"] for path in search.folder.glob("search/trials/*/trial.json")]
    assert float(chief[2]) == pytest.approx(min(scores), rel=1e-2)
