"""How a budget of FLOPs is best spent: parameters, tokens, epochs, and the loss that the law gives there.

What is minimised is the loss of a fitted law under C = D f(N) + T f(N) / 3: D tokens trained on at f(N) FLOPs
each, T tokens read afterwards at a forward pass each (Sardana et al. 2023, arXiv:2401.00448). Where the corpus
has U tokens and D is more, the law of repeated data says what another epoch is worth (Muennighoff et al. 2023,
arXiv:2305.16264); it has no closed form, and is minimised in one dimension. Then `spend` takes the model that
will really be trained.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from lmwright.errors import ConfigError
from lmwright.model.config import ModelConfig
from lmwright.scaling import laws
from lmwright.scaling.fit.fitted import Fitted
from lmwright.scaling.fit.profile import Interval
from lmwright.scaling.flops import Convention, attended, flops_per_token, matrix_parameters
from lmwright.scaling.frontier import Optimum
from lmwright.scaling.frontier.parametric import best, six_n
from lmwright.scaling.laws import data_constrained
from lmwright.scaling.planning.shape import ASPECT, counted, shape
from lmwright.scaling.points import Floats

# Muennighoff et al. 2023, on C4. Their own runs hardly identify them: R_D* from 13 to 300 fits as well.
REPEATS = {"R_D_star": 15.39, "R_N_star": 5.31}
LARGE = 1e10  # parameters of a model whose layers stand for those of a family
MANY_EPOCHS = 4.0  # up to which repeats were nearly as good as new
REPEATING = ("chinchilla", "data_constrained")  # laws that can be told how much of the text is new
PUBLISHED_WORTH: tuple[str, ...] = ("the worth of repeats is that of C4, as published; it was not measured here",)
NOTHING: tuple[str, ...] = ()
ROUNDING = 1e-6  # of the unique tokens: beyond them by less, nothing repeats


@dataclass(frozen=True, kw_only=True)
class Allocation:
    """A budget, spent. parameters: as the law counts. epochs: tokens by unique tokens, 1 where all are new.

    worth: unique tokens that would be as good as `tokens`. inference_flops: of the budget, for tokens to be read.
    """

    law: str
    flops: float
    parameters: float
    tokens: float
    unique_tokens: float
    epochs: float
    worth: float
    loss: float
    inference_flops: float
    warnings: tuple[str, ...]

    def reason(self) -> str:
        """Return the allocation in words."""
        text = (
            f"{self.parameters:.4g} parameters on {self.tokens:.4g} tokens ({self.tokens / self.parameters:.3g} a "
            f"parameter) is the least loss of law {self.law} for {self.flops:.3g} FLOPs"
        )
        if self.inference_flops:
            text += f", {self.inference_flops / self.flops:.0%} of them kept for reading"
        if self.epochs > 1:
            text += (
                f"; {self.epochs:.3g} epochs of {self.unique_tokens:.4g} tokens, worth {self.worth:.4g} new ones"
            )
        return text


def allocate(
    law: str,
    theta_P: Floats,
    flops: float,
    *,
    per_token: Callable[[Floats], Floats] = six_n,
    unique_tokens: float | None = None,
    inference_tokens: float = 0.0,
) -> Allocation:
    """Return the best allocation. per_token: training FLOPs of a token for N parameters, as the law counts them.

    unique_tokens: U of the corpus; None where there are always new ones. Where U are not enough, the parametric
    law is completed with the published worth of repeats. Raises ConfigError as `frontier.parametric.best`.
    """

    def least() -> Optimum:
        return best(
            laws.load(law),
            theta_P,
            flops,
            per_token=per_token,
            unique_tokens=unique_tokens,
            inference_tokens=inference_tokens,
        )

    _check(law, unique_tokens)
    found, warnings = least(), NOTHING
    if repeats(law, found.tokens, unique_tokens):
        law, theta_P, warnings = "data_constrained", completed(theta_P), PUBLISHED_WORTH
        found = least()
    read = inference_tokens / 3 * float(per_token(np.array([found.parameters]))[0])
    return _allocation(law, theta_P, flops, found.parameters, found.tokens, unique_tokens, read, warnings)


def spend(
    law: str,
    theta_P: Floats,
    flops: float,
    config: ModelConfig,
    *,
    length: int,
    convention: Convention,
    unique_tokens: float | None = None,
    inference_tokens: float = 0.0,
) -> Allocation:
    """Return what the budget gives with a model that is chosen, by its exact FLOPs in sequences of `length`.

    convention: how the law counts N. Raises ConfigError where the budget does not pay for one sequence.
    """
    _check(law, unique_tokens)
    warnings = NOTHING
    cost = flops_per_token(config, length)
    tokens = flops / cost - inference_tokens / 3
    if not tokens >= length:
        raise ConfigError(
            f"allocate: {flops:.3g} FLOPs leave {max(tokens, 0):.3g} tokens to train "
            f"{counted(config, convention):,} parameters on, less than a sequence of {length}: reading "
            f"{inference_tokens:.3g} tokens takes {inference_tokens / 3 * cost:.3g}; raise the budget, or lower "
            "the tokens to be read"
        )
    if repeats(law, tokens, unique_tokens):
        law, theta_P, warnings = "data_constrained", completed(theta_P), PUBLISHED_WORTH
    parameters = float(counted(config, convention))
    return _allocation(
        law, theta_P, flops, parameters, tokens, unique_tokens, inference_tokens / 3 * cost, warnings
    )


def smooth_per_token(
    family: str, *, vocab_size: int, length: int, convention: Convention, tied: bool, aspect: float = ASPECT
) -> Callable[[Floats], Floats]:
    """Return f(N) of a family's models with `aspect` = width by layers, smooth in N; head and attention count.

    A layer of width w has m w^2 elements (12 of a transformer, 8 of an LSTM), so N = m w^3 / aspect, and V w or
    2 V w more where embeddings are counted; f = 6 (m w^3 / aspect + V w) + a w^2 T / aspect, where a is 12 if
    layers attend, else 0. m and a are those of a large model of the family. Norms and biases are left out.
    """
    large = shape(LARGE, vocab_size=vocab_size, length=length, convention="kaplan", family=family).config
    elements = matrix_parameters(large) / large.hidden_size**2
    attention = 12 * attended(large) / large.hidden_size
    tables = 0
    if convention == "chinchilla":
        tables = (1 if tied else 2) * vocab_size + (length if large.position == "learned" else 0)

    def per_token(parameters: Floats) -> Floats:
        # Without tables: Newton's iteration falls from here to the root.
        width = np.cbrt(parameters * aspect / elements)
        for _ in range(60):
            excess = elements * width**3 / aspect + tables * width - parameters
            width = width - excess / (3 * elements * width**2 / aspect + tables)
        body = elements * width**3 / aspect
        flops: Floats = 6 * (body + vocab_size * width) + attention * width**2 * length / aspect
        return flops

    return per_token


def repeats(law: str, tokens: float, unique_tokens: float | None) -> bool:
    """Return whether text is seen again, and the law has to be told what that is worth.

    Where nothing repeats the law stands as it was fitted, for that of repeats takes worth from large models, too.
    """
    knows = "unique_tokens" in laws.load(law).INPUTS
    return unique_tokens is not None and not knows and tokens > unique_tokens * (1 + ROUNDING)


def completed(theta_P: Floats) -> Floats:
    """Return coordinates of the parametric law, [..., 5], as those of data_constrained, [..., 7]."""
    stars = np.log([REPEATS["R_D_star"], REPEATS["R_N_star"]])
    return np.concatenate([theta_P, np.broadcast_to(stars, (*theta_P.shape[:-1], len(stars)))], axis=-1)


def with_repeats(fitted: Fitted) -> Fitted:
    """Return a fit of the parametric law, completed: its loss of repeated text, at the published worth of repeats.

    What repeats are worth is taken to be known, so an interval is that of the rest.
    """
    stars = tuple(completed(np.array(fitted.theta))[5:].tolist())
    return replace(
        fitted,
        law="data_constrained",
        coordinates=data_constrained.PARAMETERS,
        theta=(*fitted.theta, *stars),
        profile=(*fitted.profile, *(Interval(star, star) for star in stars)),
        draws=tuple((*draw, *stars) for draw in fitted.draws),
        largest={**fitted.largest, "unique_tokens": fitted.largest["tokens"]},
    )


def _check(law: str, unique_tokens: float | None) -> None:
    if unique_tokens is not None and law not in REPEATING:
        raise ConfigError(f"allocate: law {law} knows nothing of repeated tokens; allowed: {', '.join(REPEATING)}")


def _allocation(
    law: str,
    theta_P: Floats,
    flops: float,
    parameters: float,
    tokens: float,
    unique_tokens: float | None,
    inference_flops: float,
    warnings: tuple[str, ...],
) -> Allocation:
    module = laws.load(law)
    unique = tokens  # of a law that was not told, nothing repeats
    if unique_tokens is not None and "unique_tokens" in module.INPUTS:
        unique = min(unique_tokens, tokens)
    columns = {"parameters": parameters, "tokens": tokens, "unique_tokens": unique}
    logs = {name: np.log([columns[name]]) for name in module.INPUTS}
    worth, epochs = tokens, tokens / unique
    if epochs > 1:
        star = module.natural(theta_P)["R_D_star"]
        worth = float(data_constrained.effective_tokens(unique, tokens, star))
        if epochs > MANY_EPOCHS:
            text = f"{epochs:.3g} epochs: beyond about {MANY_EPOCHS:.0f} a repeat is worth less than a new token"
            warnings = (*warnings, f"{text}, and here the law is least sure; more text would lower the loss")
    return Allocation(
        law=law,
        flops=flops,
        parameters=parameters,
        tokens=tokens,
        unique_tokens=unique,
        epochs=epochs,
        worth=worth,
        loss=math.exp(float(module.log_loss(theta_P[None], logs)[0][0, 0])),
        inference_flops=inference_flops,
        warnings=warnings,
    )
