"""Makes `tests.federation` importable however pytest is started, and gives each attack a fresh network."""

import sys
from pathlib import Path

ROOT = str(Path(__file__).parents[2])
if ROOT not in sys.path:
    sys.path.insert(0, ROOT)

from tests.services.conftest import bounded, fed  # noqa: E402, F401
