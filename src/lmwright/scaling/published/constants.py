"""Published fits: a law, its constants, how the paper counted parameters, and where the numbers were read.

Constants printed to three digits are a law of their own: rounding Hoffmann's moves the tokens per parameter at
5.76e23 FLOPs from 58.9 to 92.7. Use the unrounded ones where there are any.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from lmwright.scaling import laws
from lmwright.scaling.flops import Convention
from lmwright.scaling.points import Floats

PF_DAY = 1e15 * 24 * 3600  # FLOPs

# source: read in the paper's source or its authors' repository. copy: read in a public copy of the paper's text.
Mark = Literal["source", "copy"]


@dataclass(frozen=True, kw_only=True)
class Published:
    """A fit that a paper prints.

    law: a file's name in scaling/laws. constants: as its `natural` names them. convention: how N was counted.
    errors: standard errors, where printed. data: what the models were trained on; a loss holds for its tokenizer.
    """

    law: str
    constants: Mapping[str, float]
    convention: Convention
    data: str
    source: str
    mark: Mark
    errors: Mapping[str, float] = field(default_factory=dict)

    def theta(self) -> Floats:
        """Return the law's coordinates, [P], at these constants."""
        found: Floats = getattr(laws.load(self.law), "from_natural")(dict(self.constants))  # noqa: B009
        return found


def _kaplan(law: str, where: str, mark: Mark, **constants: float) -> Published:
    source = f"Kaplan et al. 2020, arXiv:2001.08361, {where}"
    return Published(law=law, constants=constants, convention="kaplan", data="WebText2", source=source, mark=mark)


def _gadre(data: str, a: float, b: float, e: float, eta: float) -> Published:
    return Published(
        law="over_training",
        constants={"a": a, "b": b, "E": e, "eta": eta},
        convention="chinchilla",
        data=data,
        source="Gadre et al. 2024, arXiv:2403.08540 (fitted coefficients)",
        mark="source",
    )


HOFFMANN = "Hoffmann et al. 2022, arXiv:2203.15556"
CONSTANTS: Mapping[str, Published] = MappingProxyType(
    {
        "hoffmann": Published(
            law="chinchilla",
            constants={
                "A": math.exp(6.0073404),
                "B": math.exp(6.0179186),
                "E": math.exp(0.5267228),
                "alpha": 0.33917084,
                "beta": 0.2849083,
            },
            convention="chinchilla",
            data="MassiveText",
            source=f"{HOFFMANN}, TeX source (approach 3, unrounded)",
            mark="source",
        ),
        "hoffmann-printed": Published(
            law="chinchilla",
            constants={"A": 406.4, "B": 410.7, "E": 1.69, "alpha": 0.34, "beta": 0.28},
            convention="chinchilla",
            data="MassiveText",
            source=f"{HOFFMANN}, eq. 10 (approach 3, rounded)",
            mark="source",
        ),
        "besiroglu": Published(
            law="chinchilla",
            constants={"A": 482.01, "B": 2085.43, "E": 1.8169, "alpha": 0.3478, "beta": 0.3658},
            errors={"A": 124.5, "B": 1293.0, "E": 0.026, "alpha": 0.0154, "beta": 0.0206},
            convention="chinchilla",
            data="MassiveText",
            source="Besiroglu et al. 2024, arXiv:2404.10102, table 1 (some copies print E 1.8172)",
            mark="source",
        ),
        "muennighoff": Published(
            law="data_constrained",
            constants={
                "A": math.exp(6.255414),
                "B": math.exp(7.3049974),
                "E": math.exp(0.6254804),
                "alpha": 0.3526596,
                "beta": 0.3526596,
                "R_D_star": 15.387756,
                "R_N_star": 5.309743,
            },
            convention="chinchilla",
            data="C4",
            source="Muennighoff et al. 2023, arXiv:2305.16264, appendix A and its repository (unrounded)",
            mark="source",
        ),
        "kaplan-parameters": _kaplan("power_parameters", "eq. 1.1", "source", N_c=8.8e13, alpha=0.076),
        "kaplan-data": _kaplan("power_data", "eq. 1.2", "source", D_c=5.4e13, beta=0.095),
        "kaplan-compute": _kaplan(
            "power_compute", "eq. 1.3 (C_min; figure 1 prints 2.3e8)", "copy", C_c=3.1e8 * PF_DAY, alpha=0.050
        ),
        "kaplan-compute-naive": _kaplan(
            "power_compute", "table 5 (one batch for all sizes)", "copy", C_c=1.6e7 * PF_DAY, alpha=0.057
        ),
        "kaplan-joint": _kaplan("kaplan", "table 2", "copy", N_c=6.4e13, D_c=1.8e13, alpha_N=0.076, alpha_D=0.103),
        "gadre-c4": _gadre("C4", 141, 190, 1.51, 0.121),
        "gadre-redpajama": _gadre("RedPajama", 212, 367, 1.84, 0.136),
        "gadre-refinedweb": _gadre("RefinedWeb", 157, 246, 1.73, 0.127),
    }
)
"""The fits by name: first author, and which of the paper's."""

# Kaplan et al. 2020, table 3 and eqs. 1.4 and 1.6 (copy): L = (N_c/N)^alpha_N + (S_c/S)^alpha_S, and the critical
# batch B_* / L^(1/alpha_B) tokens. Then the empirical allocation of eq. 1.8.
KAPLAN_ALPHA_N, KAPLAN_ALPHA_B, KAPLAN_ALPHA_S = 0.077, 0.21, 0.76
KAPLAN_N_C, KAPLAN_B_STAR, KAPLAN_S_C = 6.5e13, 2.1e8, 2.1e3
KAPLAN_ALLOCATION = MappingProxyType({"L": 0.050, "N": 0.73, "B": 0.24, "S": 0.03, "D": 0.27})
