"""lmwright: language models built on your own text, planned, trained, evaluated and exported.

    import lmwright as lm
    model = lm.load("runs/quickstart")
    print(model.generate("def read(", max_new_tokens=40))

Names are imported on first use, so `import lmwright` costs nothing.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

# Spinning OpenMP threads of a shared machine slow small operations up to 60 times, sleeping ones halve the speed
# of an idle machine; a bounded spin is good in both. It has to be set before torch is imported.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

if TYPE_CHECKING:
    from lmwright.api import Model, load
    from lmwright.decode.params import SamplingParams
    from lmwright.errors import LmwrightError
    from lmwright.model.config import ModelConfig
    from lmwright.text.tokenizer import Tokenizer

_HOMES = {
    "LmwrightError": "lmwright.errors",
    "Model": "lmwright.api",
    "ModelConfig": "lmwright.model.config",
    "SamplingParams": "lmwright.decode.params",
    "Tokenizer": "lmwright.text.tokenizer",
    "load": "lmwright.api",
}

__all__ = ["LmwrightError", "Model", "ModelConfig", "SamplingParams", "Tokenizer", "load"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'lmwright' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
