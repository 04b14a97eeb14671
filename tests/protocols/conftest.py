"""Makes `tests.protocols.forms` importable however pytest is started, and says how hard Hypothesis tries.

HYPOTHESIS_PROFILE=thorough looks for new examples, and many; `quick` keeps the whole folder within seconds, and tries the same ones each time,
so that a change's run speaks of that change.
"""

import os
import sys
from pathlib import Path

from hypothesis import HealthCheck, settings

ROOT = str(Path(__file__).parents[2])
if ROOT not in sys.path:
    sys.path.insert(0, ROOT)

_SLOW_HOST = [HealthCheck.too_slow]
settings.register_profile("quick", max_examples=60, deadline=None, derandomize=True, suppress_health_check=_SLOW_HOST)
settings.register_profile("thorough", max_examples=5_000, deadline=None, suppress_health_check=_SLOW_HOST)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))
