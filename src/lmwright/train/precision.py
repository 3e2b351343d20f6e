"""The dtype policy: parameters, gradients and optimiser state are fp32; only the matrix products may be bf16.

bf16 has the exponent of fp32, so no loss scaling is needed (Kalamkar et al. 2019). There is no autocast: the
context of each forward call carries the compute dtype, and each layer casts its weight where it multiplies.
"""

from __future__ import annotations

from typing import Literal

import torch

from lmwright.errors import ConfigError
from lmwright.model.precision import PRECISIONS

DTYPES = {name: PRECISIONS[name].torch_dtype for name in ("fp32", "bf16")}


def resolve_device(device: Literal["auto", "cpu", "cuda"]) -> Literal["cpu", "cuda"]:
    """Return where to train. Raises ConfigError if a GPU is asked for and there is none."""
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("training.device = 'cuda': PyTorch sees no GPU here; use 'cpu' or 'auto'")
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return device


def native_bf16(device: Literal["cpu", "cuda"]) -> bool:
    """Return whether the device multiplies bf16 in hardware: AVX512-BF16 or AMX, or a GPU since Ampere."""
    if device == "cuda":
        return torch.cuda.get_device_capability()[0] >= 8
    ask = getattr(torch.cpu, "get_capabilities", None)  # not in every torch that is supported: then fp32
    abilities = ask() if ask is not None else {}
    return bool(abilities.get("avx512_bf16") or abilities.get("amx_bf16"))


def resolve(precision: Literal["auto", "fp32", "bf16"], device: Literal["cpu", "cuda"]) -> Literal["fp32", "bf16"]:
    """Return the compute precision: 'auto' is bf16 where it is native, for elsewhere it is emulated and slow."""
    if precision == "auto":
        return "bf16" if native_bf16(device) else "fp32"
    return precision
