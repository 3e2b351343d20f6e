"""Plant one-line faults in a copy of the source and show that the tests catch every one.

    python scripts/planted_faults.py [--workers N] [NAME ...]

A fault is listed in planted_faults.toml: the file, the text before, the text after, and the tests that should
notice. First the tests are run on an unaltered copy, so that a catch means something. A fault is caught only where
a test fails: one that does not even import, breaks a fixture or hangs the tests shows nothing about them, and is
reported as invalid. Exits 1 unless every fault is caught.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
WORKERS = 2
TIMEOUT_SECONDS = 600
# What a replacement that is no valid Python raises, by whichever way it reaches the output.
INVALID = re.compile(
    r"\b(?:NameError|UnboundLocalError|ImportError|ModuleNotFoundError|SyntaxError|IndentationError): \w"
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fault:
    """One planted fault; `before` stands exactly once in `file`."""

    name: str
    file: str
    before: str
    after: str
    tests: tuple[str, ...]

    def plant(self, root: Path) -> None:
        """Alter the copy of the source below `root`."""
        path = root / self.file
        text = path.read_text()
        if text.count(self.before) != 1:
            raise SystemExit(f"{self.name}: {self.before!r} stands {text.count(self.before)} times in {self.file}")
        path.write_text(text.replace(self.before, self.after))


def faults() -> list[Fault]:
    """Read the list of faults."""
    table = tomllib.loads((ROOT / "scripts" / "planted_faults.toml").read_text())
    return [Fault(**{**entry, "tests": tuple(entry["tests"])}) for entry in table["fault"]]


def outcome(fault: Fault | None, tests: tuple[str, ...]) -> str:
    """Run the tests on a copy of the source with the fault planted (None: unaltered); return how they ended.

    'lives': they pass. 'caught': a test fails, of itself. Else 'invalid' and why.
    """
    with tempfile.TemporaryDirectory() as directory:
        copy = Path(directory)
        shutil.copytree(ROOT / "src" / "lmwright", copy / "lmwright", ignore=shutil.ignore_patterns("__pycache__"))
        if fault is not None:
            fault.plant(copy)
        environment = {
            **os.environ,
            "PYTHONPATH": str(copy),
            "PYTHONDONTWRITEBYTECODE": "1",
            "OMP_NUM_THREADS": "1",
        }
        where = run([sys.executable, "-c", "import lmwright; print(lmwright.__file__)"], environment)
        assert where.stdout.startswith(str(copy)), "the copy is not what the tests would import"
        options = ["-x", "-q", "--tb=short", "-rfE", "-p", "no:cacheprovider", "-p", "no:randomly"]
        options += ["-m", "not slow"]  # what `make test` runs must be enough
        try:
            result = run([sys.executable, "-m", "pytest", *options, *tests], environment)
        except subprocess.TimeoutExpired:
            return f"invalid: the tests took more than {TIMEOUT_SECONDS} s"
        return judge(result.returncode, result.stdout + result.stderr)


def judge(code: int, output: str) -> str:
    """Return the outcome from pytest's exit code and output."""
    if code == 0:
        return "lives"
    if found := INVALID.search(output):
        return f"invalid: {found[0].partition(':')[0]}"
    if (
        code != 1
        or not re.search(r"^FAILED ", output, re.MULTILINE)
        or re.search(r"^ERROR ", output, re.MULTILINE)
    ):
        return f"invalid: no test failed of itself (exit code {code})"
    return "caught"


def run(command: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a command in the repository with its output kept."""
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False
    )


def main(words: list[str]) -> int:
    """Plant the named faults, or all; print one line each; return the exit code."""
    parser = argparse.ArgumentParser(description="Plant faults and show that the tests catch every one.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="which faults; all by default")
    parser.add_argument("--workers", type=int, default=WORKERS, help="how many at a time")
    asked = parser.parse_args(words)
    known = {fault.name: fault for fault in faults()}
    if unknown := [name for name in asked.names if name not in known]:
        raise SystemExit(f"no fault {unknown[0]}; there are: {', '.join(known)}")
    chosen = [fault for name, fault in known.items() if not asked.names or name in asked.names]
    with ThreadPoolExecutor(asked.workers) as pool:
        tests = sorted({test for fault in chosen for test in fault.tests})
        for test, found in zip(tests, pool.map(lambda test: outcome(None, (test,)), tests), strict=True):
            if found != "lives":
                raise SystemExit(f"{test} does not pass on the unaltered source ({found}); mend that first")
        outcomes = []
        for fault, found in zip(chosen, pool.map(lambda fault: outcome(fault, fault.tests), chosen), strict=True):
            outcomes.append(found)
            shown, _, why = found.partition(": ")
            print(
                f"{shown.upper() if shown != 'caught' else shown:8} {fault.name:40} {why or fault.file}",
                flush=True,
            )
    print(f"{outcomes.count('caught')} of {len(chosen)} planted faults caught")
    return int(set(outcomes) != {"caught"})


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
