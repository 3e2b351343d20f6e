"""Plant one-line faults in a copy of the source and show that the tests catch every one.

    python scripts/planted_faults.py [NAME ...]

A fault is listed in planted_faults.toml: the file, the text before, the text after, and the tests that should
notice. First the tests are run on an unaltered copy, so that a catch means something. Exits 1 if a fault lives.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
WORKERS = 2
TIMEOUT_SECONDS = 300


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


def passes(fault: Fault | None, tests: tuple[str, ...]) -> bool:
    """Return whether the tests pass on a copy of the source with the fault planted (None: unaltered)."""
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
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-x",
            "-q",
            "-p",
            "no:cacheprovider",
            "-p",
            "no:randomly",
            *tests,
        ]
        try:
            result = run(command, environment)
        except subprocess.TimeoutExpired:
            return False  # a fault that hangs the tests does not go unnoticed
        if result.returncode not in (0, 1):
            raise SystemExit(f"pytest could not run {tests}:\n{result.stdout[-2000:]}{result.stderr[-2000:]}")
        return result.returncode == 0


def run(command: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a command in the repository with its output kept."""
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False
    )


def main(names: list[str]) -> int:
    """Plant the named faults, or all; print one line each; return the exit code."""
    chosen = [fault for fault in faults() if not names or fault.name in names]
    if not chosen:
        raise SystemExit(f"no such fault; there are: {', '.join(fault.name for fault in faults())}")
    tests = tuple(sorted({test for fault in chosen for test in fault.tests}))
    if not passes(None, tests):
        raise SystemExit("the tests fail on the unaltered source; mend that first")
    with ThreadPoolExecutor(WORKERS) as pool:
        lived = list(pool.map(lambda fault: passes(fault, fault.tests), chosen))
    for fault, alive in zip(chosen, lived, strict=True):
        print(f"{'LIVES ' if alive else 'caught'}  {fault.name:32} {fault.file}")
    print(f"{lived.count(False)} of {len(chosen)} planted faults caught")
    return int(any(lived))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
