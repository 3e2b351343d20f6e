"""L(C) = (C_c / C)^alpha: a power law in FLOPs of training that falls without end.

Kaplan et al. 2020, arXiv:2001.08361, eq. 1.3. It holds for the best loss that a compute budget C reaches, as along
a frontier, where the loss is far above what cannot be learnt; nearer to it, `power_compute_floor` holds.
"""

from __future__ import annotations

from lmwright.scaling.laws._shared import PowerLaw

_LAW = PowerLaw(inputs=("flops",), coefficients=("A",), exponents=("alpha",), scale="C_c")

INPUTS = _LAW.inputs
PARAMETERS = _LAW.parameters
BOUNDS = _LAW.bounds
log_loss = _LAW.log_loss
curvature = _LAW.curvature
starts = _LAW.starts
natural = _LAW.natural
from_natural = _LAW.from_natural
