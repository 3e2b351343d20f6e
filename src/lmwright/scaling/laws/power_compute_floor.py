"""L(C) = E + A / C^alpha: a power law in FLOPs of training, with what it never falls below.

Henighan et al. 2020, arXiv:2010.14701, eq. 1.1, in another arrangement. It holds for the best loss that a compute
budget C reaches, as along a frontier. Without E it is `power_compute`.
"""

from __future__ import annotations

from lmwright.scaling.laws._shared import PowerSum

_LAW = PowerSum(inputs=("flops",), coefficients=("A",), exponents=("alpha",))

INPUTS = _LAW.inputs
PARAMETERS = _LAW.parameters
BOUNDS = _LAW.bounds
log_loss = _LAW.log_loss
curvature = _LAW.curvature
starts = _LAW.starts
natural = _LAW.natural
from_natural = _LAW.from_natural
