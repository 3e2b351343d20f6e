"""Learning rate and batch from one's own sweep: the bottom of each valley, then a power law over sizes.

Of each size and batch the best rate is the bottom of a parabola in ln(rate) near the lowest loss; of each size
the best batch is the bottom over ln(batch) of the losses at the best rates. A bottom at the edge of its grid is
refused: the optimum lies beyond it. Over sizes a prior is corrected by a power law: by one factor where one or two
sizes were swept, by a power of N D from three on, by powers of N and of D where they vary apart. Where nothing can
be used the prior stands alone. So few runs bend a rule only as far as they can.

A rate belongs to a batch: the rule's is the rate at the batch rule's batch. One that was measured at another is
moved there by the square root of the batch, as Adam's noise has it (Malladi et al. 2022, arXiv:2205.10287).
"""

# R rows (sizes with an optimum), P coefficients

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from lmwright.errors import ConfigError
from lmwright.scaling import priors
from lmwright.scaling.points import Floats
from lmwright.scaling.priors import Scale
from lmwright.scaling.valley import bottom

Quantity = Literal["learning_rate", "batch_tokens"]
DEFAULT = "step_law_small"  # of the priors
FEW = 3  # sizes from which an exponent is fitted, beside the factor
APART = 0.1  # smallest singular value of standardised ln N and ln D by the largest: above it they vary apart


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One run of a sweep. loss: at its end; infinite where it diverged."""

    scale: Scale
    learning_rate: float
    batch_tokens: float
    loss: float

    def __post_init__(self) -> None:
        for name in ("learning_rate", "batch_tokens", "loss"):
            value = getattr(self, name)
            if not value > 0 or (math.isinf(value) and name != "loss"):
                raise ConfigError(f"sweep: {name} {value}; must be positive and finite (a loss may be infinite)")


@dataclass(frozen=True, kw_only=True)
class Best:
    """The best rate of a size at the batch `at`, and the best batch where the sweep shows one: then it is `at`."""

    scale: Scale
    learning_rate: float
    at: float
    batch_tokens: float | None
    loss: float


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A prior times exp(coefficients . (1, covariates - centre)); no coefficient: the prior alone.

    covariates: 'N D', or 'N' and 'D', by their logarithms. sizes: that were measured. spread: standard deviation
    of ln(measured / rule), None where nothing is left over to tell.
    """

    quantity: Quantity
    prior: str
    coefficients: tuple[float, ...] = ()
    covariates: tuple[str, ...] = ()
    centre: tuple[float, ...] = ()
    sizes: int = 0
    spread: float | None = None

    def value(self, scale: Scale) -> float:
        """Return the quantity for a run."""
        value = _prior(self.prior, self.quantity, scale)
        if not self.coefficients:
            return value
        shift = np.array(_covariates(scale, self.covariates)) - np.array(self.centre)
        return value * math.exp(float(np.array(self.coefficients) @ np.concatenate([[1.0], shift])))

    def reason(self, scale: Scale) -> str:
        """Return where the value comes from, in words."""
        said = priors.suggest(self.prior, scale)
        doubt = f"; {'; '.join(said.outside)}" if said.outside else ""
        if not self.coefficients:
            return f"prior {self.prior}, not measured here ({said.source}){doubt}"
        text = f"prior {self.prior} times {self.value(scale) / _prior(self.prior, self.quantity, scale):.3g}"
        text += f", as measured on {self.sizes} size{'s' if self.sizes > 1 else ''}"
        if self.covariates:
            powers = zip(self.covariates, self.coefficients[1:], strict=True)
            text += ", which moves it by " + " and ".join(f"({name})^{power:+.3f}" for name, power in powers)
        return text + (f", to a factor of {math.exp(self.spread):.2f}" if self.spread is not None else "")


@dataclass(frozen=True, kw_only=True)
class Swept:
    """What a sweep taught: a rule for the rate and one for the batch, the optima behind them, and warnings."""

    learning_rate: Rule
    batch_tokens: Rule
    optima: tuple[Best, ...]
    warnings: tuple[str, ...]


def fit_sweep(trials: Sequence[Trial], *, rate_prior: str = DEFAULT, batch_prior: str = DEFAULT) -> Swept:
    """Fit rules to a sweep; without a trial, they are the priors. ConfigError for a prior that gives no rate."""
    by_scale: dict[Scale, list[Trial]] = {}
    for trial in trials:
        by_scale.setdefault(trial.scale, []).append(trial)
    optima: list[Best] = []
    warnings: list[str] = []
    for scale, group in by_scale.items():
        best, notes = _optimum(scale, group)
        warnings.extend(f"size {scale.total:.3g}, {note}" for note in notes)
        if best is not None:
            optima.append(best)
    batches = [(best.scale, best.batch_tokens) for best in optima if best.batch_tokens is not None]
    batch_tokens = _rule("batch_tokens", batch_prior, batches)
    rates = [(one.scale, at_batch(one.learning_rate, one.at, batch_tokens.value(one.scale))) for one in optima]
    return Swept(
        learning_rate=_rule("learning_rate", rate_prior, rates),
        batch_tokens=batch_tokens,
        optima=tuple(optima),
        warnings=tuple(warnings),
    )


def at_batch(rate: float, batch: float, other: float) -> float:
    """Return what a rate at one batch is at another: by the square root of the batch."""
    return rate * math.sqrt(other / batch)


def _optimum(scale: Scale, trials: list[Trial]) -> tuple[Best | None, list[str]]:
    """Return the optimum of one size, None where no batch shows the bottom of its valley, and what was refused."""
    notes: list[str] = []
    log_batch, log_rate, loss = [], [], []
    for batch in sorted({trial.batch_tokens for trial in trials}):
        rows = [trial for trial in trials if trial.batch_tokens == batch and math.isfinite(trial.loss)]
        valley = bottom(np.log([row.learning_rate for row in rows]), np.array([row.loss for row in rows]))
        name = f"batch {batch:.3g}"
        notes.extend(f"{name}: {note}" for note in valley.notes)
        if valley.problem is not None:
            notes.append(f"{name} is refused: {valley.problem.replace('place', 'rate')}")
            continue
        log_batch.append(math.log(batch))
        log_rate.append(valley.log_place)
        loss.append(valley.loss)
    if not loss:
        return None, notes
    lowest = int(np.argmin(loss))
    rate, at = math.exp(log_rate[lowest]), math.exp(log_batch[lowest])
    best = Best(scale=scale, learning_rate=rate, at=at, batch_tokens=None, loss=loss[lowest])
    over = bottom(np.array(log_batch), np.array(loss))
    if over.problem is None:
        rate, at = math.exp(float(np.interp(over.log_place, log_batch, log_rate))), math.exp(over.log_place)
        return replace(best, learning_rate=rate, at=at, batch_tokens=at, loss=over.loss), notes
    if len(loss) > 1:
        problem = over.problem.replace("places", "batches").replace("place", "batch")
        notes.append(f"its batch is refused: {problem}")
    return best, notes


def _rule(quantity: Quantity, prior: str, measured: Iterable[tuple[Scale, float]]) -> Rule:
    """Fit the correction of a prior to what was measured, by least squares of logarithms."""
    pairs = list(measured)
    if not pairs:
        return Rule(quantity=quantity, prior=prior)
    offset_R = np.log([value / _prior(prior, quantity, scale) for scale, value in pairs])
    names = _choose([scale for scale, _ in pairs])
    columns = np.array([_covariates(scale, names) for scale, _ in pairs]).reshape(len(pairs), len(names))
    centre = columns.mean(axis=0)
    design_RP = np.column_stack([np.ones(len(pairs)), columns - centre])
    found_P = np.linalg.lstsq(design_RP, offset_R, rcond=None)[0]
    left = offset_R - design_RP @ found_P
    freedom = len(pairs) - len(found_P)
    return Rule(
        quantity=quantity,
        prior=prior,
        coefficients=tuple(found_P.tolist()),
        covariates=names,
        centre=tuple(centre.tolist()),
        sizes=len(pairs),
        spread=math.sqrt(float(left @ left) / freedom) if freedom else None,
    )


def _choose(scales: list[Scale]) -> tuple[str, ...]:
    """Return the covariates that so many sizes can tell apart."""
    if len({(scale.total, scale.tokens) for scale in scales}) < FEW:
        return ()
    both: Floats = np.array([_covariates(scale, ("N", "D")) for scale in scales])
    spread = both.std(axis=0)
    if len(scales) > FEW and spread.min() > 0:
        singular = np.linalg.svd((both - both.mean(axis=0)) / spread, compute_uv=False)
        if singular[1] > APART * singular[0]:
            return ("N", "D")
    return ("N D",)


def _covariates(scale: Scale, names: tuple[str, ...]) -> list[float]:
    size, length = math.log(scale.non_embedding), math.log(scale.tokens)
    known = {"N": size, "D": length, "N D": size + length}
    return [known[name] for name in names]


def _prior(name: str, quantity: Quantity, scale: Scale) -> float:
    said = priors.suggest(name, scale)
    value = said.learning_rate if quantity == "learning_rate" else said.batch_tokens
    if value is None:
        raise ConfigError(
            f"sweep: prior {name} gives no {quantity}; choose another of {', '.join(priors.names())}"
        )
    return value
