"""L(N, D) = E + A / N^alpha + B / D^beta: Hoffmann et al. 2022, arXiv:2203.15556, section 3.3 (approach 3).

E is what no model of any size reaches below, A / N^alpha what a finite model lacks, B / D^beta what finite data
lack. It holds for runs whose schedule ended, on data seen about once. Knows no compute budget.
"""

from __future__ import annotations

from lmwright.scaling.laws._shared import PowerSum

_LAW = PowerSum(inputs=("parameters", "tokens"), coefficients=("A", "B"), exponents=("alpha", "beta"), grid=16)

INPUTS = _LAW.inputs
PARAMETERS = _LAW.parameters
BOUNDS = _LAW.bounds
log_loss = _LAW.log_loss
curvature = _LAW.curvature
starts = _LAW.starts
natural = _LAW.natural
from_natural = _LAW.from_natural
