"""What is measured by hand only must still run: this one measure is short enough to be run here."""

import json
import subprocess
import sys
from pathlib import Path


def test_every_step_that_refuses_a_parcel_is_measured() -> None:
    found = subprocess.run([sys.executable, Path(__file__).with_name("order.py")], capture_output=True, check=True)
    order = json.loads(found.stdout.splitlines()[-1])["refusal_order"]
    assert len(order) == 10 and list(order)[0] == "request signature" and list(order)[-1] == "schema"
    assert all(step["us"] > 0 for step in order.values())
