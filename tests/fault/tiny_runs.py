"""Tiny real runs for the fault tests: a corpus on disk, real checkpoints, a model of a few thousand weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from lmwright.config import merge
from lmwright.data.build import build_corpus
from lmwright.text.tokenizer import train_bpe

WORDS = [
    "the",
    "model",
    "reads",
    "a",
    "token",
    "then",
    "it",
    "writes",
    "another",
    "while",
    "no",
    "bit",
    "is",
    "lost",
]


def make_corpus(place: Path, seed: int = 3) -> Path:
    """Build a corpus of 60 documents of very different lengths."""
    random = np.random.default_rng(seed)
    (place / "text").mkdir(parents=True)
    texts = [" ".join(random.choice(WORDS, size=int(random.integers(3, 90)))) for _ in range(60)]
    for number, text in enumerate(texts):
        (place / "text" / f"{number:03d}.txt").write_text(text)
    build_corpus(place / "text", train_bpe(texts, 300), place / "corpus", validation_fraction=0.1)
    return place / "corpus"


def settings(corpus: Path, **training: Any) -> dict[str, Any]:
    """The settings of a run that takes a second: dropout, packed documents, ragged micro-batches, three epochs."""
    base: dict[str, Any] = {
        "architecture": {
            "family": "llama",
            "hidden_size": 16,
            "num_layers": 2,
            "num_heads": 2,
            "ffn_size": 32,
            "embedding_dropout": 0.1,
            "attention_dropout": 0.1,
            "residual_dropout": 0.1,
        },
        "data": {"corpus": str(corpus), "context_length": 32, "packing": "documents"},
        "training": {
            "steps": 12,
            "batch_size": 20,
            "micro_batch_size": 7,
            "threads": 1,
            "matmul": "highest",
            "precision": "fp32",
            "eval_every": 0,
            "checkpoint_every": 3,
        },
    }
    return merge(base, {"training": training})


def recurrent(chosen: dict[str, Any]) -> dict[str, Any]:
    """The same run of an LSTM that takes its state along: contiguous text, of which four updates are an epoch."""
    architecture = {"family": "lstm", "hidden_size": 16, "num_layers": 2, "residual_dropout": 0.1}
    return {**merge(chosen, {"data": {"packing": "contiguous"}}), "architecture": architecture}


def weights(run: Path) -> dict[str, bytes]:
    """Every file of the newest checkpoint that must be equal to the bit."""
    newest = run / "checkpoints" / (run / "latest").read_text().strip()
    names = ("model.safetensors", "state/optimizer.safetensors", "state/carried.safetensors")
    return {name: (newest / name).read_bytes() for name in names if (newest / name).exists()}
