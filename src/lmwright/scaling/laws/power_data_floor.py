"""L(D) = E + B / D^beta: a power law in tokens, with what it never falls below.

Henighan et al. 2020, arXiv:2010.14701, eq. 1.1, in another arrangement. It holds for models that are large enough
not to matter, each trained to its end on D tokens. Without E it is `power_data`.
"""

from __future__ import annotations

from lmwright.scaling.laws._shared import PowerSum

_LAW = PowerSum(inputs=("tokens",), coefficients=("B",), exponents=("beta",))

INPUTS = _LAW.inputs
PARAMETERS = _LAW.parameters
BOUNDS = _LAW.bounds
log_loss = _LAW.log_loss
curvature = _LAW.curvature
starts = _LAW.starts
natural = _LAW.natural
from_natural = _LAW.from_natural
