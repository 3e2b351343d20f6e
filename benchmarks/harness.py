"""What every benchmark shares: alternate the candidates, take medians, write one JSON file with the environment.

Machines are shared and noisy: candidates take turns within one process tree, so that a slow minute hits all of
them, and the figure that counts is the ratio of medians. A result file holds rows of
{measure, value, unit, peer, peer_value, ratio, target}; the README's table is made from these files alone.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lmwright.runs import atomic_write_json, environment

RESULTS = Path(__file__).parent / "results"


def alternate(candidates: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Call each candidate once a round, in turn, and return what each returned, round by round."""
    measured: dict[str, list[float]] = {name: [] for name in candidates}
    for number in range(rounds):
        for name, measure in candidates.items():
            measured[name].append(measure())
        shown = "  ".join(f"{name} {values[-1]:,.4g}" for name, values in measured.items())
        print(f"round {number + 1}/{rounds}: {shown}", file=sys.stderr, flush=True)
    return measured


def row(
    measure: str,
    values: Sequence[float],
    unit: str,
    *,
    peer: str | None = None,
    peer_values: Sequence[float] = (),
    target: str | None = None,
    headline: bool = True,
) -> dict[str, Any]:
    """Return one line of a result: medians, and their ratio to a peer. headline: show it in the README."""
    median = statistics.median(values)
    line: dict[str, Any] = {
        "measure": measure,
        "value": median,
        "unit": unit,
        "rounds": len(values),
        "headline": headline,
    }
    if peer is not None:
        peer_median = statistics.median(peer_values)
        line |= {"peer": peer, "peer_value": peer_median, "ratio": median / peer_median}
    if target is not None:
        line["target"] = target
    return line


def write(name: str, rows: Sequence[Mapping[str, Any]], **notes: Any) -> None:
    """Write results/NAME.json (rows, notes, the command, the environment) and print the rows."""
    RESULTS.mkdir(exist_ok=True)
    result = {
        "benchmark": name,
        "command": f"python -m benchmarks.{name}",
        "rows": [dict(line) for line in rows],
        "notes": notes,
        "environment": environment(),
    }
    atomic_write_json(RESULTS / f"{name}.json", result)
    print(json.dumps(result["rows"], indent=2))
