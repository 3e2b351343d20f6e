"""The progress bar of everything that may take longer than two seconds: what, how far, how fast, how long yet.

It writes to standard error, appears only once two seconds have passed, and is silent where standard error is no
terminal, so that logs stay readable.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lmwright.inert import inert

if TYPE_CHECKING:
    from tqdm import tqdm

DELAY_SECONDS = 2.0


def note(text: str) -> None:
    """Write a line to standard error, above any bar."""
    import sys

    from tqdm import tqdm

    tqdm.write(inert(text), file=sys.stderr)


def bar(label: str, *, total: float | None, unit: str, initial: float = 0, shown: bool = True) -> tqdm[Any]:
    """Return a tqdm bar: `update(n)`, `set_postfix_str(text)`, usable as a context manager.

    total: the amount of `unit` expected, or None if it cannot be known. initial: how much was done before.
    shown: False gives a bar that is never drawn.
    """
    from tqdm import tqdm

    return tqdm(
        total=total,
        desc=label,
        unit=unit,
        unit_scale=True,
        initial=initial,
        delay=DELAY_SECONDS,
        dynamic_ncols=True,
        disable=None if shown else True,
    )
