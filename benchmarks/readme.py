"""Makes the README's table of measured results from benchmarks/results/*.json, between two marker comments."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.harness import RESULTS
from lmwright.runs import atomic_write_text

README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"


def table() -> str:
    """Return the Markdown table of every row of every result file that asks to be shown."""
    lines = ["| measured | lmwright | peer | ratio | target | command |", "|---|--:|--:|--:|---|---|"]
    for path in sorted(RESULTS.glob("*.json")):
        result = json.loads(path.read_text())
        shown = [line for line in result["rows"] if line["headline"]]
        lines += [_line(line, result["command"]) for line in shown]
    return "\n".join(lines)


def _line(line: dict[str, Any], command: str) -> str:
    peer = f"{_number(line['peer_value'])} ({line['peer']})" if "peer" in line else ""
    ratio = f"{_ratio(line['ratio'])}x" if "ratio" in line else ""
    value = f"{_number(line['value'])} {line['unit']}"
    return f"| {line['measure']} | {value} | {peer} | {ratio} | {line.get('target', '')} | `{command}` |"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def _ratio(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"


def rewrite() -> None:
    """Put the table of the current result files into README.md."""
    text = README.read_text()
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    atomic_write_text(README, f"{before}{BEGIN}\n{table()}\n{END}{after}")


if __name__ == "__main__":
    rewrite()
