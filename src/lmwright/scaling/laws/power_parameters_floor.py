"""L(N) = E + A / N^alpha: a power law in parameters, with what it never falls below.

Henighan et al. 2020, arXiv:2010.14701, eq. 1.1, in another arrangement. It holds for models trained to their end
on data enough not to matter. Without E it is `power_parameters`.
"""

from __future__ import annotations

from lmwright.scaling.laws._shared import PowerSum

_LAW = PowerSum(inputs=("parameters",), coefficients=("A",), exponents=("alpha",))

INPUTS = _LAW.inputs
PARAMETERS = _LAW.parameters
BOUNDS = _LAW.bounds
log_loss = _LAW.log_loss
curvature = _LAW.curvature
starts = _LAW.starts
natural = _LAW.natural
from_natural = _LAW.from_natural
