"""What a user can spend, read from one short text: `10m`, `1h30m`, `1e18`, `8xH100 3d`.

A time alone is time on this machine, so its FLOPs follow from a rate that the caller measured. Devices and a time
become FLOPs by the devices' published dense peak in 16-bit floats and the share of it that is reached (MFU;
Chowdhery et al. 2022, arXiv:2204.02311, section 4.1). Knows nothing of models.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from lmwright.config import closest
from lmwright.errors import ConfigError

# FLOP/s in bf16 (fp16 where there is none), dense, accumulated in fp32, from the makers' data sheets.
PEAKS = {
    "a100": 312e12,
    "b200": 2250e12,
    "h100": 989.4e12,
    "h100-pcie": 756e12,
    "h200": 989.4e12,
    "l4": 121e12,
    "l40s": 362e12,
    "mi250": 362.1e12,
    "mi300x": 1307.4e12,
    "rtx3090": 71e12,
    "rtx4090": 165.2e12,
    "t4": 65e12,
    "tpu-v4": 275e12,
    "tpu-v5e": 197e12,
    "tpu-v5p": 459e12,
    "tpu-v6e": 918e12,
    "v100": 125e12,
}
MFU = 0.4  # reached by well-made training of dense models: PaLM had 0.46, Llama 3 0.38 to 0.43
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
MOST_SECONDS, MOST_FLOPS, MOST_DEVICES = 10 * 365 * 86_400.0, 1e32, 1_000_000
LEAST_FLOPS = 1e6  # a smaller bare number is a slip: a time without its unit
LONGEST = 100  # characters

_NUMBER = r"[0-9]+(?:\.[0-9]+)?(?:e\+?[0-9]+)?"
# A space may stand between a number and its unit, and between such pairs: elsewhere, as in "8h100 30m" (the x
# forgotten), leaving it out would make one number of two.
_PAIR = rf"{_NUMBER} ?[smhdw]"
_TIME = re.compile(rf"{_PAIR}(?: ?{_PAIR})*")
_PART = re.compile(rf"({_NUMBER}) ?([smhdw])")
_FLOPS = re.compile(rf"({_NUMBER})(?: ?flops?)?")
_DEVICES = re.compile(r"(?:([0-9]+) ?[x*] ?)?([a-z][a-z0-9-]*) (.+)")
FORMS = "a time on this machine (10m, 1h30m, 3d), FLOPs (1e18), or devices and a time (8xH100 3d)"


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What may be spent: seconds on this machine, FLOPs, or seconds on a number of devices; `parse` makes it.

    device: a key of PEAKS, None for this machine. mfu: the share of its peak that is reckoned with.
    """

    text: str
    seconds: float | None = None
    flops: float | None = None
    device: str | None = None
    devices: int = 1
    mfu: float = MFU

    def compute(self, rate: float | None = None) -> float:
        """Return the FLOPs. rate: FLOP/s that this machine reaches in training, for a budget of time.

        Raises ConfigError where a rate is needed and none, or no positive one, is given.
        """
        if self.flops is not None:
            return self.flops
        assert self.seconds is not None
        if self.device is not None:
            return self.devices * PEAKS[self.device] * self.mfu * self.seconds
        if rate is None or not (math.isfinite(rate) and rate > 0):
            raise ConfigError(
                f"budget {self.text!r}: is a time on this machine, its speed is {rate}; measure it, or give FLOPs"
            )
        return self.seconds * rate

    def reason(self) -> str:
        """Return how FLOPs that need no rate come about, in words. Raises ConfigError as `compute`."""
        total = f"{self.compute():.3g} FLOPs"
        if self.device is not None:
            peak = f"{PEAKS[self.device] / 1e12:.4g} TFLOP/s (dense, 16 bit)"
            return f"{total}: {self.devices} x {self.device} for {self.seconds:,.0f} s at {self.mfu:.0%} of {peak}"
        return f"{total}, as given"


def parse(text: str, *, mfu: float = MFU) -> Budget:
    """Read a budget. mfu: share of their peak that devices reach; has no part in the other forms.

    Raises ConfigError, in one line, for anything else, an unknown device, and what is not positive or absurd.
    """
    if not (math.isfinite(mfu) and 0 < mfu <= 1):
        raise ConfigError(f"budget: mfu {mfu}; must be above 0 and at most 1")
    plain = " ".join(text.lower().replace("\N{MULTIPLICATION SIGN}", "x").split())
    if len(text) <= LONGEST:
        if _TIME.fullmatch(plain):
            return Budget(text=text, seconds=_seconds(plain, text))
        if found := _FLOPS.fullmatch(plain):
            return Budget(text=text, flops=_flops(found[1], text))
        found = _DEVICES.fullmatch(plain)
        if found and _TIME.fullmatch(found[3]):
            device, devices = _device(found[2], text), _devices(found[1], text)
            return Budget(text=text, seconds=_seconds(found[3], text), device=device, devices=devices, mfu=mfu)
    raise ConfigError(f"budget {_short(text)}: must be {FORMS}")


def _seconds(time: str, text: str) -> float:
    parts = _PART.findall(time)
    units = [SECONDS[unit] for _, unit in parts]
    if units != sorted(set(units), reverse=True):
        raise ConfigError(f"budget {_short(text)}: name each unit of time once, the longest first, as 1h30m")
    seconds = math.fsum(float(number) * SECONDS[unit] for number, unit in parts)
    if not 0 < seconds <= MOST_SECONDS:
        raise ConfigError(f"budget {_short(text)}: {seconds:.3g} s; must be above 0 and at most ten years")
    return seconds


def _flops(number: str, text: str) -> float:
    flops = float(number)
    if flops < LEAST_FLOPS:
        raise ConfigError(
            f"budget {_short(text)}: a time needs its unit (s, m, h, d, w); FLOPs are at least {LEAST_FLOPS:g}"
        )
    if flops > MOST_FLOPS:
        raise ConfigError(f"budget {_short(text)}: must be at most {MOST_FLOPS:g} FLOPs")
    return flops


def _device(name: str, text: str) -> str:
    if name not in PEAKS:
        raise ConfigError(
            f"budget {_short(text)}: no device {name!r}{closest(name, tuple(PEAKS))}; there are "
            f"{', '.join(PEAKS)}; for another, give FLOPs"
        )
    return name


def _devices(count: str | None, text: str) -> int:
    devices = 1 if count is None else int(count)
    if not 1 <= devices <= MOST_DEVICES:
        raise ConfigError(f"budget {_short(text)}: {devices} devices; must be 1 to {MOST_DEVICES:,}")
    return devices


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:37] + "...")
