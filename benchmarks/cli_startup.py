"""Claim: `lmwright --help` and every sub-help answer in under 0.5 s (median of 7 fresh processes)."""

from __future__ import annotations

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


def main() -> None:
    """Measure the help of lmwright and of every verb, in turn."""
    lines = [[], *([verb] for verb in verbs())]
    times = alternate({" ".join(["lmwright", *line]): lambda line=line: seconds(line) for line in lines}, ROUNDS)
    rows = [row(f"{name} --help", values, "s", target="< 0.5 s") for name, values in times.items()]
    write("cli_startup", rows)


if __name__ == "__main__":
    main()
