"""What every test shares: few threads, no network, and hypothesis made deterministic."""

from __future__ import annotations

import os
import tempfile

# Before torch is imported: two spinning threads on a shared machine are slower than one.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("GOMP_SPINCOUNT", "2000")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
# No test sees what the doctor has remembered of this machine.
os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="lmwright-tests-")

from hypothesis import HealthCheck, settings

settings.register_profile(
    "lmwright", derandomize=True, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("lmwright")
