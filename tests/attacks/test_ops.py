"""Operation: what a process that holds keys refuses, and what it leaves nowhere (group ops)."""

import subprocess
import sys
from pathlib import Path

import pytest

from gateway.runtime.settings import make_settings
from protocols.problems import ProblemError

TLS = {"exchange_url": "https://node.example", "tls_certificate": "c.pem", "tls_key": "k.pem"}
LIVE = {"member": "demo/police", "name": "Police", "country": "AT", "directory": "https://directory.example", **TLS}
PROGRAM = """
import ctypes, resource, sys
from gateway.runtime.cli.main import main
sys.argv = ["tracewire", "--version"]
try:
    main()
except SystemExit:
    pass
print(resource.getrlimit(resource.RLIMIT_CORE), ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))
"""


def test_a_node_of_the_demo_does_not_go_live() -> None:
    with pytest.raises(ProblemError, match=r"config.invalid: .*demo") as refused:
        make_settings(LIVE, "tracewire.toml")
    assert refused.value.errors[0].fix
    assert make_settings(LIVE | {"member": "net/police"}, "tracewire.toml").exchange_tls


def test_a_process_of_ours_writes_no_core_and_lets_nobody_read_its_memory() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "(0, 0) 0"
