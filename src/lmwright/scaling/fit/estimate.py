"""From points to a fitted law: checks, minimum, profile, bootstrap, in that order."""

from __future__ import annotations

import numpy as np

from lmwright.errors import ConfigError
from lmwright.scaling import laws
from lmwright.scaling.fit import checks
from lmwright.scaling.fit.bootstrap import FEWEST, bootstrap
from lmwright.scaling.fit.fitted import Fitted
from lmwright.scaling.fit.minimise import Minimum, lowered, minimise
from lmwright.scaling.fit.profile import Profile, profile, rise_scale
from lmwright.scaling.fit.robust import DELTA, Objective, design_effect, robust_scale
from lmwright.scaling.fit.students import student_quantile
from lmwright.scaling.points import Floats, Points
from lmwright.seeds import numpy_generator

ROWS = 2048  # that starts are laid by, and brought near their minima: all rows of a ladder, few of many curves
LEAST_SCALE = 1e-12  # of ln L: noise below this is rounding
MEDIAN_EFFICIENCY = 0.37
MIDDLE = 2.563  # standard deviations of a normal between its first and last tenth
RETURNS = 3  # times that a profile which finds a lower minimum is taken again from there


def fit(
    law: str, points: Points, *, delta: float = DELTA, level: float = 0.95, draws: int = 1000, seed: int = 0
) -> Fitted:
    """Fit a law to points by Huber's loss of ln L, with profile and bootstrap intervals.

    law: a file's name in scaling/laws. delta: where Huber's loss turns linear, in ln L. level: of the intervals.
    draws: of the bootstrap by run; 0 leaves it out, and with it predictions. Points whose schedule was cut are
    left out, with a warning. Raises ConfigError for an unknown law, no more points than coordinates, 1 to 19
    draws, or a single run where draws are asked for.
    """
    if not 0 < level < 1 or draws < 0:
        raise ConfigError(f"fit: level {level}, draws {draws}; a level is between 0 and 1, draws are 0 or more")
    if 0 < draws < FEWEST:
        raise ConfigError(
            f"fit: draws {draws}; an interval from so few bootstrap draws is too narrow, from one draw it has no "
            f"width; give {FEWEST} or more (1000 is usual), or 0 for none"
        )
    module = laws.load(law)
    used, left_out = checks.usable(points)
    objective = Objective.of(module, used, delta)
    runs, cluster_R = used.clusters()
    freedom, scale_freedom = _freedom(len(used), len(runs), len(module.PARAMETERS))
    reach = student_quantile(0.5 + level / 2, scale_freedom)
    rough = objective.thinned(ROWS, numpy_generator(seed, "rows that a scaling law is first fitted to"))
    starts_SP = module.starts(rough.columns, rough.log_loss_R)
    minimum = minimise(objective, starts_SP, rough)
    drawn_BP = np.empty((0, len(module.PARAMETERS)))
    if draws:
        random = numpy_generator(seed, "bootstrap of a scaling law")
        drawn_BP, _ = bootstrap(objective, minimum.theta_P, starts_SP, cluster_R, draws, random)
    minimum, around, scale, effect = _profiled(objective, minimum, drawn_BP, cluster_R, reach)
    least_loss = float(used.loss.min())
    return Fitted(
        law=law,
        convention=points.convention,
        metric=points.metric,
        coordinates=module.PARAMETERS,
        theta=tuple(minimum.theta_P.tolist()),
        objective=minimum.value,
        delta=delta,
        points=len(used),
        runs=len(runs),
        starts=minimum.starts,
        followed=minimum.followed,
        agreed=minimum.agreed,
        level=level,
        freedom=freedom,
        scale=scale,
        design_effect=effect,
        profile=around.intervals,
        draws=tuple(map(tuple, drawn_BP.tolist())),
        largest=checks.largest(used, module.INPUTS),
        least_loss=least_loss,
        families=tuple(sorted(set(used.family) - {""})),
        domains=tuple(sorted(set(used.domain) - {""})),
        contexts=tuple(sorted(set(used.context.tolist()) - {0})),
        warnings=(
            *left_out,
            *checks.constant(used, module.INPUTS),
            *checks.agreement(minimum.agreed, minimum.followed),
            *checks.at_bounds(module, minimum.theta_P),
            *checks.floor(module, minimum.theta_P, least_loss),
            *checks.together(effect),
            *_unlike(module.PARAMETERS, around, drawn_BP, reach),
        ),
    )


def _freedom(points: int, runs: int, coordinates: int) -> tuple[int, int]:
    """Return the degrees of freedom of the points and of the scale; runs err together, so no more than they give.

    A scale by the median is as sure as one by squares of 0.37 times as many points (Huber 1981).
    """
    if points <= coordinates:
        raise ConfigError(f"fit: {points} points for {coordinates} coordinates; give at least {coordinates + 1}")
    spare = points - coordinates
    return max(1, min(spare, runs - 1)), max(1, min(round(MEDIAN_EFFICIENCY * spare), runs - 1))


def _profiled(
    objective: Objective, minimum: Minimum, drawn_BP: Floats, cluster_R: np.ndarray, reach: float
) -> tuple[Minimum, Profile, float, float]:
    """Return the minimum, its profile, the noise and the design effect; where a profile finds lower, go there."""
    elsewhere_CP = np.concatenate([minimum.near_SP, drawn_BP])
    for _ in range(RETURNS):
        residual_R = objective.residual(minimum.theta_P[None])[0]
        scale = max(robust_scale(residual_R, len(minimum.theta_P), objective.delta), LEAST_SCALE)
        effect = design_effect(residual_R, cluster_R)
        allowed = 0.5 * reach**2 * effect / rise_scale(objective.delta, scale)
        around = profile(objective, minimum.theta_P, minimum.value, allowed, elsewhere_CP)
        if minimum.value - around.lowest <= 1e-3 * allowed:
            break
        minimum = lowered(objective, minimum, around.lowest_P)
    return minimum, around, scale, effect


def _unlike(names: tuple[str, ...], around: Profile, drawn_BP: Floats, reach: float) -> tuple[str, ...]:
    """Compare spreads by profile, `reach` of which lie to either side, and by the middle of the draws."""
    if not len(drawn_BP):
        return ()
    low_P, high_P = np.quantile(drawn_BP, [0.1, 0.9], axis=0)
    width_P = np.array([one.high - one.low if one.identified else np.inf for one in around.intervals])
    return checks.unlike(names, width_P / (2 * reach), (high_P - low_P) / MIDDLE)
