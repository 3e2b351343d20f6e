"""L(N) = (N_c / N)^alpha: a power law in parameters that falls without end.

Kaplan et al. 2020, arXiv:2001.08361, eq. 1.1. It holds for models trained to their end on data enough not to
matter, where the loss is far above what cannot be learnt; nearer to it, `power_parameters_floor` holds.
"""

from __future__ import annotations

from lmwright.scaling.laws._shared import PowerLaw

_LAW = PowerLaw(inputs=("parameters",), coefficients=("A",), exponents=("alpha",), scale="N_c")

INPUTS = _LAW.inputs
PARAMETERS = _LAW.parameters
BOUNDS = _LAW.bounds
log_loss = _LAW.log_loss
curvature = _LAW.curvature
starts = _LAW.starts
natural = _LAW.natural
from_natural = _LAW.from_natural
