"""Claim: `lmwright --help` and every sub-help answer in under 0.5 s (median of 7 fresh processes)."""

from __future__ import annotations

import importlib
import statistics
import subprocess
import sys
import time

from benchmarks.harness import alternate, row, write
from lmwright.cli.main import verbs

ROUNDS = 7


def seconds(arguments: list[str]) -> float:
    """Return the wall time of one fresh process that prints the help of a verb."""
    start = time.perf_counter()
    command = [sys.executable, "-m", "lmwright", *arguments, "--help"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def below() -> list[list[str]]:
    """Return the commands of the verbs that are groups."""
    groups = {verb: importlib.import_module(f"lmwright.cli.{verb}").command for verb in verbs()}
    return [[verb, name] for verb, group in groups.items() for name in getattr(group, "commands", {})]


def main() -> None:
    """Measure the help of lmwright and of every verb, in turn."""
    lines = [[], *([verb] for verb in verbs()), *below()]
    times = alternate({" ".join(["lmwright", *line]): lambda line=line: seconds(line) for line in lines}, ROUNDS)
    rows = [row(f"{name} --help", values, "s", target="< 0.5 s", headline=False) for name, values in times.items()]
    slowest = max(times.values(), key=statistics.median)
    write("cli_startup", [row(f"slowest --help of {len(lines)}", slowest, "s", target="< 0.5 s"), *rows])


if __name__ == "__main__":
    main()
