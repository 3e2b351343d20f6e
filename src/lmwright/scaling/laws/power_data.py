"""L(D) = (D_c / D)^beta: a power law in tokens that falls without end.

Kaplan et al. 2020, arXiv:2001.08361, eq. 1.2. It holds for models that are large enough not to matter, each
trained to its end on D tokens, where the loss is far above what cannot be learnt; nearer to it, `power_data_floor`
holds.
"""

from __future__ import annotations

from lmwright.scaling.laws._shared import PowerLaw

_LAW = PowerLaw(inputs=("tokens",), coefficients=("B",), exponents=("beta",), scale="D_c")

INPUTS = _LAW.inputs
PARAMETERS = _LAW.parameters
BOUNDS = _LAW.bounds
log_loss = _LAW.log_loss
curvature = _LAW.curvature
starts = _LAW.starts
natural = _LAW.natural
from_natural = _LAW.from_natural
