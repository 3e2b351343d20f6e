"""The objective of a fit: the sum of Huber's loss over residuals of ln L (Hoffmann et al. 2022, section 3.3).

A sum, not a mean: a mean is so small that minimisers with absolute tolerances stop at their start. With the
published delta of 0.001, below the noise of losses, most points count by their absolute residual, so the fit is
close to one of medians. From delta 0.03 on it is least squares.

Knows nothing of how the minimum is found.
"""

# S starts, R rows (points), P coordinates

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from lmwright.errors import ConfigError
from lmwright.scaling.laws import Columns, Law
from lmwright.scaling.points import Floats, Points

DELTA = 1e-3  # of Hoffmann et al. 2022, in nats of ln L
AT_ONCE = 2**22  # numbers of a law's derivatives, 32 MiB: what values alone are computed in
NORMAL_MAD = 1.4826022185056018  # standard deviation of a normal by its median absolute deviation


def huber(residual: Floats, delta: float) -> Floats:
    """Return r^2/2 where |r| is at most delta, delta (|r| - delta/2) beyond (Huber 1964)."""
    bounded = np.clip(residual, -delta, delta)
    value: Floats = bounded * (residual - 0.5 * bounded)
    return value


@dataclass(frozen=True, eq=False)
class Objective:
    """sum_r w_r huber(ln L(theta, x_r) - ln L_r), for many theta at once; weights count how often a row is taken.

    columns: natural logarithms of the law's inputs, [R]. log_loss_R: natural logarithms of the measured losses.
    """

    law: Law
    columns: Columns
    log_loss_R: Floats
    delta: float

    @classmethod
    def of(cls, law: Law, points: Points, delta: float = DELTA) -> Objective:
        """Read what the law needs from the points. Raises ConfigError for a delta that is not positive."""
        if not (math.isfinite(delta) and delta > 0):
            raise ConfigError(f"fit: delta {delta}; must be positive and finite (published: {DELTA})")
        return cls(law, points.logs(law.INPUTS), points.log("loss"), delta)

    def thinned(self, rows: int, random: np.random.Generator) -> Objective:
        """Return the objective of so many of the rows, drawn without replacement; itself if there are no more."""
        if len(self.log_loss_R) <= rows:
            return self
        drawn = random.permutation(len(self.log_loss_R))[:rows]
        columns = {name: column_R[drawn] for name, column_R in self.columns.items()}
        return replace(self, columns=columns, log_loss_R=self.log_loss_R[drawn])

    def residual(self, theta_SP: Floats) -> Floats:
        """Return ln L(theta) - ln L, [S, R]."""
        parts = [self.law.log_loss(theta_SP[part], self.columns)[0] for part in self._parts(len(theta_SP))]
        return np.concatenate(parts) - self.log_loss_R

    def value(self, theta_SP: Floats, weights_SR: Floats | None = None) -> Floats:
        """Return the objective, [S]."""
        found = [
            _total(
                huber(self.residual(theta_SP[part]), self.delta), None if weights_SR is None else weights_SR[part]
            )
            for part in self._parts(len(theta_SP))
        ]
        return np.concatenate(found)

    def _parts(self, starts: int) -> Iterator[slice]:
        """Yield slices of the starts; many at once are as many copies of the rows."""
        size = max(1, AT_ONCE // (len(self.log_loss_R) * len(self.law.PARAMETERS)))
        return (slice(first, first + size) for first in range(0, starts, size))

    def slopes(self, theta_SP: Floats, weights_SR: Floats | None = None) -> tuple[Floats, Floats, Floats]:
        """Return value [S], gradient [S, P] and the curvature [S, P, P] of a quadratic that lies above.

        The curvature J^T W J, with weights min(1, delta/|r|), is that of iteratively reweighted least squares: the
        quadratic touches Huber's loss and is nowhere below it, to first order in the law.
        """
        log_SR, jacobian_SRP = self.law.log_loss(theta_SP, self.columns)
        residual_SR = log_SR - self.log_loss_R
        bounded_SR = np.clip(residual_SR, -self.delta, self.delta)
        value_S = _total(bounded_SR * (residual_SR - 0.5 * bounded_SR), weights_SR)
        least = np.finfo(np.float64).tiny
        irls_SR = self.delta / np.maximum(np.abs(residual_SR), max(self.delta, least))
        if weights_SR is not None:
            bounded_SR = bounded_SR * weights_SR
            irls_SR = irls_SR * weights_SR
        return value_S, _pull(jacobian_SRP, bounded_SR), _squares(jacobian_SRP, irls_SR)

    def hessian(self, theta_SP: Floats, weights_SR: Floats | None = None) -> Floats:
        """Return the second derivatives of the objective, [S, P, P].

        The part of the first derivatives, J^T J over the rows within delta, is exact. The part of the law's second
        derivatives takes the slopes of Huber's loss as they are, so its kinks do not enter.
        """
        log_SR, jacobian_SRP = self.law.log_loss(theta_SP, self.columns)
        residual_SR = log_SR - self.log_loss_R
        inside_SR = (np.abs(residual_SR) < self.delta).astype(np.float64)
        slope_SR = np.clip(residual_SR, -self.delta, self.delta)
        if weights_SR is not None:
            inside_SR *= weights_SR
            slope_SR = slope_SR * weights_SR
        exact = getattr(self.law, "curvature", None)
        curved_SPP: Floats = (
            exact(jacobian_SRP, self.columns, slope_SR) if exact else self._curvature(theta_SP, slope_SR)
        )
        return _squares(jacobian_SRP, inside_SR) + curved_SPP

    def _curvature(self, theta_SP: Floats, slope_SR: Floats) -> Floats:
        """Return sum_r slope_r d2 ln L_r by central differences of the first ones: off by 1e-10 of the value."""
        curved_SPP = np.empty((*theta_SP.shape, theta_SP.shape[1]))
        step = np.finfo(np.float64).eps ** (1 / 3)
        for place in range(theta_SP.shape[1]):
            moved_SP = theta_SP.copy()
            moved_SP[:, place] += step
            ahead_SP = _pull(self.law.log_loss(moved_SP, self.columns)[1], slope_SR)
            moved_SP[:, place] -= 2 * step
            behind_SP = _pull(self.law.log_loss(moved_SP, self.columns)[1], slope_SR)
            curved_SPP[:, place] = (ahead_SP - behind_SP) / (2 * step)
        symmetric_SPP: Floats = 0.5 * (curved_SPP + curved_SPP.transpose(0, 2, 1))
        return symmetric_SPP


def _total(value_SR: Floats, weights_SR: Floats | None) -> Floats:
    total: Floats = value_SR.sum(axis=1) if weights_SR is None else np.einsum("sr,sr->s", value_SR, weights_SR)
    return total


def _pull(jacobian_SRP: Floats, slope_SR: Floats) -> Floats:
    pulled: Floats = np.matmul(slope_SR[:, None], jacobian_SRP)[:, 0]
    return pulled


def _squares(jacobian_SRP: Floats, weights_SR: Floats) -> Floats:
    jacobian_SPR = jacobian_SRP.transpose(0, 2, 1)
    squares: Floats = np.matmul(jacobian_SPR * weights_SR[:, None], jacobian_SRP)
    return squares


def robust_scale(residual_R: Floats, coordinates: int, delta: float) -> float:
    """Return the standard deviation of normal noise with the residuals' median size, about zero.

    For the P coordinates that were fitted, it is times sqrt(R / (R - P)), as for least squares; but where most
    residuals are beyond delta, the fit runs through P points as one of medians does, and the P smallest are left
    out instead (Holland and Welsch 1977). Raises ConfigError where there are no more rows than coordinates.
    """
    rows = len(residual_R)
    if rows <= coordinates:
        raise ConfigError(f"fit: {rows} points for {coordinates} coordinates; give at least {coordinates + 1}")
    size_R = np.sort(np.abs(residual_R))
    if np.median(size_R) > delta:
        return NORMAL_MAD * float(np.median(size_R[coordinates:]))
    return NORMAL_MAD * float(np.median(size_R)) * math.sqrt(rows / (rows - coordinates))


def design_effect(residual_R: Floats, cluster_R: np.ndarray) -> float:
    """Return by what the variance grows because points of one run err together: 1 + (m - 1) rho, at least 1.

    m is the mean size of a run as a point sees it, rho the correlation of residuals within runs (Kish 1965;
    Moulton 1986), by the products of all pairs of one run. Residuals are cut at three robust scales first.
    """
    sizes = np.bincount(cluster_R)
    pairs = float((sizes * (sizes - 1)).sum())
    scale = NORMAL_MAD * float(np.median(np.abs(residual_R)))
    if not pairs or not scale:
        return 1.0
    cut_R = np.clip(residual_R, -3 * scale, 3 * scale)
    square = float((cut_R**2).sum())
    together = float((np.bincount(cluster_R, weights=cut_R) ** 2).sum()) - square
    correlation = (together / pairs) / (square / len(cut_R))
    size = float((sizes**2).sum() / sizes.sum())
    return max(1.0, 1.0 + (size - 1.0) * min(correlation, 1.0))
