"""Scaling laws: loss as a function of parameters, tokens or compute, one file a law.

A file here defines `INPUTS`, `PARAMETERS`, `BOUNDS`, `log_loss`, `starts` and `natural` as `Law` says,
`from_natural` where the literature prints constants, and `curvature` (as `PowerSum` in `_shared`) where second
derivatives are simple; without it they are differences. `columns` are the natural logarithms of the columns of
`Points` that INPUTS names. All is float64. A law knows nothing of how it is fitted.
"""

# S starts, R rows (points), P coordinates

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, cast

from lmwright import seams
from lmwright.scaling.points import Floats

PACKAGE = "lmwright.scaling.laws"
Columns = Mapping[str, Floats]  # natural logarithms, [R] each


class Law(Protocol):
    """What a file of this folder offers.

    INPUTS: the columns of Points that the law reads. PARAMETERS: names of its fitted coordinates, in order; a
    coordinate that is the logarithm of X is named ln_X. BOUNDS: of each coordinate; a fit that ends at one is
    warned of.
    """

    @property
    def INPUTS(self) -> tuple[str, ...]: ...  # noqa: D102

    @property
    def PARAMETERS(self) -> tuple[str, ...]: ...  # noqa: D102

    @property
    def BOUNDS(self) -> tuple[tuple[float, float], ...]: ...  # noqa: D102

    def log_loss(self, theta_SP: Floats, columns: Columns) -> tuple[Floats, Floats]:
        """Return ln L, [S, R], and its exact derivatives by the coordinates, [S, R, P]."""

    def starts(self, columns: Columns, log_loss_R: Floats) -> Floats:
        """Return where a fit begins, [S, P]: at most a few hundred, within the bounds, the same each time."""

    def natural(self, theta_P: Floats) -> dict[str, float]:
        """Return the numbers that papers print, by their names there."""


def load(name: str) -> Law:
    """Return the law of a file's name. Raises ConfigError with the nearest one if there is none."""
    return cast(Law, seams.load(PACKAGE, name))


def names() -> tuple[str, ...]:
    """Return the names of all laws, sorted."""
    return seams.names(PACKAGE)
