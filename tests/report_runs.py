"""Run directories made up for the tests of the report, and a reader of the page that is written from them."""

from __future__ import annotations

import json
import math
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

STEPS, TOKENS = 120, 4096
VOID = {"meta", "link", "br", "hr", "img", "input", "wbr", "col", "base"}


def write(path: Path, name: str, value: Any) -> None:
    (path / name).write_text(json.dumps(value), encoding="utf-8")


def records(steps: int = STEPS) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [{"kind": "start", "step": 0, "threads": 2, "precision": "bf16"}]
    for step in range(1, steps + 1):
        loss = 2.5 + 6 * math.exp(-step / 12) + 0.05 * math.sin(step * 7.3)
        speed = 9000 + 300 * math.cos(step)
        found.append(
            {
                "kind": "step", "step": step, "loss": loss, "lr": 3e-3 * min(1, step / 10),
                "grad_norm": 0.5 + 1 / step, "tokens": step * TOKENS, "tokens_per_second": speed,
                "mfu": speed * 7.5e6 / 3e11, "interval_tokens": TOKENS, "seconds": step * TOKENS / 9000,
            }
        )  # fmt: skip
        if step % 30 == 0:
            found.append({"kind": "evaluation", "step": step, "loss": loss + 0.2, "eval_seconds": 1.5})
    seconds = steps * TOKENS / 9000
    found.append(
        {
            "kind": "end",
            "step": steps,
            "tokens": steps * TOKENS,
            "seconds": seconds,
            "peak_memory_bytes": 7e8,
            "memory_at_start_bytes": 5.9e8,
        }
    )
    return found


def plan_from_budget(path: Path, **changes: Any) -> None:
    """Add to a run's plan.json what a plan from a budget holds. changes: of its keys."""
    plan = json.loads((path / "plan.json").read_text())
    law = {"name": "chinchilla", "source": "law.json", "metric": "nats/token", "own": True}
    loss = {"loss": 2.625, "low": 2.5, "high": 2.75, "worth": 4e5, "warnings": []}
    figures = {"tokens": 500_000, "training_flops": 3.7e12, "seconds": 64.25, "memory_bytes": 9.5e7}
    write(path, "plan.json", {**plan, "budget": {"budget": "1m", "law": law, "loss": loss, **figures, **changes}})


def make_run(path: Path, *, leave_out: tuple[str, ...] = ()) -> Path:
    """Write a whole run directory, as training, evaluation and export leave it."""
    path.mkdir(parents=True)
    total, inner, tokens = 1_213_184, 819_968, STEPS * TOKENS
    architecture = {"family": "llama", "hidden_size": 128, "rope_scaling": None, "tie_embeddings": True}
    training = {"steps": STEPS, "optimizer": {"name": "adamw", "betas": [0.9, 0.95]}, "clip_norm": 1.0}
    data = {"corpus": "corpus", "context_length": 256}
    files = {
        "config.json": {
            "architecture": architecture, "task": {"objective": "causal"}, "data": data, "training": training,
        },
        "env.json": {"python": "3.11.7", "cores": 2, "versions": {"torch": "2.13.0"}},
        "plan.json": {
            "steps": STEPS, "tokens": tokens, "epochs": 0.873214,
            "parameters": {"total": total, "embedding": 393_216, "head": 0, "non_embedding": inner},
            "flops": {
                "total": 7_512_345 * tokens, "per_token": 7_512_345.5,
                "six_nd_all_parameters": 6.0 * total * tokens, "six_nd_without_embeddings": 6.0 * inner * tokens,
            },
            "memory_bytes": {"weights": 4852736, "gradients": 4852736, "activations": 91_000_000, "total": 1.01e8},
            "seconds": 61.5, "peak_flops": 3.1e11,
        },
        "corpus.json": {
            "source": "stdlib", "rejects": {"not valid UTF-8": 3, "empty file": 41}, "xz_bits_per_byte": 2.1043,
            "train": {"documents": 1234, "tokens": 562_301, "bytes": 1_999_777, "bytes_per_token": 3.5643},
            "validation": {"documents": 31, "tokens": 12_346, "bytes": 43_210, "bytes_per_token": 3.5088},
            "byte_unigram_bits_per_byte": 4.7131,
        },
        "evaluation.json": {"nats": 33_271.125, "tokens": 12_345, "bytes": 43_210},
        "samples.json": {
            "settings": {"temperature": 0.8, "seed": 0},
            "samples": [{"prompt": "def read(", "continuation": "self):\n    return 0\n"}],
        },
        "verification.json": {"verified": True, "max_abs_difference": 3.1e-06},
    }  # fmt: skip
    for name, value in files.items():
        if name not in leave_out:
            write(path, name, value)
    if "metrics.jsonl" not in leave_out:
        lines = [json.dumps(record) for record in records()]
        (path / "metrics.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def add_to_metrics(run: Path, kind: str, **facts: object) -> None:
    """Give every record of a kind more facts."""
    path = run / "metrics.jsonl"
    records = [json.loads(line) for line in path.read_text().splitlines()]
    changed = [record | facts if record["kind"] == kind else record for record in records]
    path.write_text("".join(json.dumps(record) + "\n" for record in changed))


class Page(HTMLParser):
    """A page taken apart: every element, the printed numbers, the text; an unbalanced tag is an error."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.numbers: list[tuple[str, str, str]] = []
        self.shown: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open, f"never closed: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs), f"an attribute twice in {tag}: {attrs}"
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open, f"</{tag}> closes nothing"
        assert self._open[-1] == tag, f"</{tag}> closes <{self._open[-1]}>"
        self._open.pop()

    def handle_data(self, data: str) -> None:
        if "style" in self._open:
            return
        self.shown.append(data)
        if self._open and self._open[-1] == "data":
            attributes = self.elements[-1][1]
            self.numbers.append((attributes["data-name"] or "", attributes["value"] or "", data))

    @property
    def text(self) -> str:
        return "".join(self.shown)

    def ids(self) -> list[str]:
        return [value for _, attributes in self.elements if (value := attributes.get("id"))]
