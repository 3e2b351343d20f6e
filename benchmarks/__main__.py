"""Run every benchmark, or the named ones, and rewrite the table in README.md from the result files.

python -m benchmarks [NAME ...] [--table-only]
"""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys

import benchmarks
from benchmarks import readme

SHARED = {"__main__", "harness", "readme"}


def main(arguments: list[str]) -> None:
    """Run the benchmarks one after the other, each in its own process tree."""
    names = [module.name for module in pkgutil.iter_modules(benchmarks.__path__) if module.name not in SHARED]
    chosen = [argument for argument in arguments if not argument.startswith("--")]
    if unknown := set(chosen) - set(names):
        raise SystemExit(f"no benchmark {', '.join(sorted(unknown))}; there are: {', '.join(names)}")
    if "--table-only" not in arguments:
        for name in chosen or names:
            print(f"== {name}: {importlib.import_module(f'benchmarks.{name}').__doc__}", flush=True)
            subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], check=True)
    readme.rewrite()


if __name__ == "__main__":
    main(sys.argv[1:])
