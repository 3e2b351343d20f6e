"""The precisions in which models are computed and stored: the one table of their names and sizes.

Free of torch at import, so that a plan can size a model; `torch_dtype` imports it. Which precision a machine is
quick at is not known here (train.precision).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lmwright.config import closest
from lmwright.errors import ConfigError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Precision:
    """name: as users write it. long: torch's and Hugging Face's. stored: safetensors'. bytes: of one number."""

    name: str
    long: str
    stored: str
    bytes: int

    @property
    def torch_dtype(self) -> torch.dtype:
        """torch's object of this precision."""
        import torch

        dtype: torch.dtype = getattr(torch, self.long)
        return dtype


PRECISIONS = {
    precision.name: precision
    for precision in (
        Precision("fp32", "float32", "F32", 4),
        Precision("bf16", "bfloat16", "BF16", 2),
        Precision("fp16", "float16", "F16", 2),
    )
}


def find(name: str, where: str = "precision") -> Precision:
    """The precision of this name, short or long. ConfigError names the nearest."""
    for precision in PRECISIONS.values():
        if name in (precision.name, precision.long):
            return precision
    allowed = tuple(PRECISIONS)
    raise ConfigError(f"{where}: {name!r}{closest(str(name), allowed)}; allowed: {', '.join(allowed)}")


def of_torch(dtype: torch.dtype) -> Precision | None:
    """The precision that this torch dtype is; None where it is none of the table."""
    return next((found for found in PRECISIONS.values() if f"torch.{found.long}" == str(dtype)), None)
