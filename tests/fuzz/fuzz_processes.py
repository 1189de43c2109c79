"""Damaged files read in processes of their own, so that one that ends or hangs its reader is seen and told.

This file is also the script of such a process: `python fuzz_processes.py READER SAMPLES BEGIN END` reads the damaged
files of these numbers, and answers with a line of JSON for each.
"""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from fuzz_readers import READERS, mutation, write_samples

__all__ = ["Reading", "read_damaged"]

HANG_SECONDS = 5
"""Of the processor: how busy the machine is does not count."""
SILENT_SECONDS = 120
"""Of waiting for a process that computes nothing either, or is about to start."""
MEMORY_BYTES = 6 << 30


@dataclass(frozen=True)
class Reading:
    """What became of one damaged file.

    Args:
        index: its number.
        outcome: "accepted", "refused" (a tfopt error), "other" (another exception), "crash" or "hang".
        seconds: of the processor, its children's too.
        said: the error's class and words, or how the process ended.
        place: where another exception was raised.
    """

    index: int
    outcome: str
    seconds: float
    said: str = ""
    place: str = ""


def read_damaged(reader: str, samples: Path, begin: int, end: int) -> Iterator[Reading]:
    """Reads the damaged files of a reader in a process of its own, and in another where it ends too early.

    Args:
        reader: one of `READERS`.
        samples: the folder of `write_samples`.
        begin: the number of the first file.
        end: the number behind the last.
    """
    while begin < end:
        command = [sys.executable, "-P", __file__, reader, str(samples), str(begin), str(end)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TF_CPP_MIN_LOG_LEVEL": "3"}
        with (
            tempfile.TemporaryFile() as words,
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=words, env=environment) as process,
        ):
            assert process.stdout is not None
            lines = _lines(process)
            ready = next(lines, None)
            for line in lines:
                reading = Reading(**json.loads(line))
                begin = reading.index + 1
                yield reading
            silent = process.poll() is None and not _ended(process)
            if silent:
                process.kill()
            code = process.wait()
            words.seek(0)
            said = words.read().decode(errors="replace").strip()
        if ready is None:
            raise RuntimeError(f"The process that reads damaged files does not start: {said}")
        if begin < end:
            how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            hangs = silent or code == -signal.SIGXCPU
            yield Reading(begin, "hang" if hangs else "crash", float(HANG_SECONDS if hangs else 0), how)
            begin += 1


def _lines(process: subprocess.Popen[bytes]) -> Iterator[str]:
    """Lines until the process ends or is silent; waited for in slices, because a stopped machine is not silence."""
    assert process.stdout is not None
    rest, waited = b"", 0
    while waited < SILENT_SECONDS:
        ready, _, _ = select.select([process.stdout], [], [], 1.0)
        if not ready:
            waited += 1
            continue
        waited = 0
        chunk = os.read(process.stdout.fileno(), 1 << 16)
        if not chunk:
            return
        *whole, rest = (rest + chunk).split(b"\n")
        yield from (line.decode() for line in whole)


def _ended(process: subprocess.Popen[bytes]) -> bool:
    try:
        process.wait(2)
    except subprocess.TimeoutExpired:
        return False
    return True


def _answer(reader: str, folder: Path, samples: list[bytes], index: int) -> Reading:
    from tfopt.errors import TfoptError

    path = folder / READERS[reader].name
    path.write_bytes(mutation(reader, samples, index))
    resource.setrlimit(resource.RLIMIT_CPU, (int(time.process_time()) + 1 + HANG_SECONDS, resource.RLIM_INFINITY))
    begin, outcome, said, place = _seconds(), "accepted", "", ""
    try:
        READERS[reader].read(path)
    except TfoptError as error:
        outcome, said = "refused", f"{type(error).__name__}: {error}"
    except BaseException as error:  # whatever is not tfopt's is what is looked for
        outcome, said = "other", f"{type(error).__name__}: {error}"
        frames = traceback.extract_tb(error.__traceback__)
        ours = [frame for frame in frames if "tfopt" in frame.filename]
        told = [f"{Path(frame.filename).name}:{frame.lineno}" for frame in (*ours[-2:], frames[-1])]
        place = " > ".join(told)
    return Reading(index, outcome, round(_seconds() - begin, 3), said[:300], place)


def _seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def main(reader: str, samples: str, begin: str, end: str) -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what libraries print is no answer
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    contents = write_samples(reader, Path(samples))
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))
    with tempfile.TemporaryDirectory() as folder:
        READERS[reader].read(_sample(Path(folder), reader, contents[0]))  # what is imported does not count
        print("ready", file=answers, flush=True)
        for index in range(int(begin), int(end)):
            reading = _answer(reader, Path(folder), contents, index)
            print(json.dumps(asdict(reading)), file=answers, flush=True)


def _sample(folder: Path, reader: str, content: bytes) -> Path:
    path = folder / READERS[reader].name
    path.write_bytes(content)
    return path


if __name__ == "__main__":
    main(*sys.argv[1:])
