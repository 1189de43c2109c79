"""Damaged files through every reader that tfopt has: `python tests/fuzz/fuzz.py --mutations 10000`.

No damaged file may end or hang the process that reads it, and what is refused must be refused by a tfopt error. The
files are the same in every run. Those that break a rule are written into the folder of `--keep`.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

from fuzz_processes import Reading, read_damaged
from fuzz_readers import READERS, mutation, write_samples

__all__ = ["broken_rules", "fuzz", "summary"]

MOST_OF_A_PROCESS = 1000
"""Files that one process reads: libraries keep memory of models that are gone."""
OUTCOMES = ("accepted", "refused", "other", "crash", "hang")


def fuzz(reader: str, samples: Path, count: int, *, begin: int = 0, processes: int = 1) -> list[Reading]:
    """What became of the damaged files of a reader.

    Args:
        reader: one of `READERS`.
        samples: a folder for files that are whole.
        count: how many damaged ones there are.
        begin: the number of the first.
        processes: how many read them.
    """
    write_samples(reader, samples)
    shares = max(processes, -(-count // MOST_OF_A_PROCESS))
    edges = [begin + count * share // shares for share in range(shares + 1)]
    with ThreadPoolExecutor(processes) as pool:
        parts = pool.map(lambda edge: list(read_damaged(reader, samples, *edge)), pairwise(edges))
        return [reading for part in parts for reading in part]


def broken_rules(readings: Sequence[Reading]) -> list[Reading]:
    """Those that ended or hung the process, or were refused by another error than tfopt's."""
    return [reading for reading in readings if reading.outcome not in {"accepted", "refused"}]


def summary(readings: Sequence[Reading]) -> dict[str, Any]:
    """The counts of a reader, and the seconds of the processor that the slowest file took."""
    counts = Counter(reading.outcome for reading in readings)
    slowest = max(readings, key=lambda reading: reading.seconds)
    return {
        "mutations": len(readings),
        **{outcome: counts[outcome] for outcome in OUTCOMES},
        "longest_seconds": slowest.seconds,
        "slowest": slowest.index,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("readers", nargs="*", help=f"default: all of {', '.join(READERS)}")
    parser.add_argument("--mutations", type=int, default=10_000)
    parser.add_argument("--begin", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out", type=Path, help="a JSON file of counts; other readers' stay in it")
    parser.add_argument("--keep", type=Path, help="a folder for the files that break a rule")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for reader in arguments.readers or READERS:
            readings = fuzz(
                reader, Path(folder), arguments.mutations, begin=arguments.begin, processes=arguments.processes
            )
            print(reader, json.dumps(summary(readings)), flush=True)
            for reading in broken_rules(readings):
                print("  ", reading, flush=True)
                if arguments.keep:
                    arguments.keep.mkdir(parents=True, exist_ok=True)
                    content = mutation(reader, write_samples(reader, Path(folder)), reading.index)
                    (arguments.keep / f"{reading.index}-{READERS[reader].name}").write_bytes(content)
            if arguments.out:
                results = json.loads(arguments.out.read_text()) if arguments.out.exists() else {}
                results[reader] = summary(readings)
                arguments.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
