"""All programs as one file: `python tracewire-verify.pyz log | proof | fork | match | policy | evidence ...` (`make verifier`)."""

import sys
from importlib import import_module

PROGRAMS = {"match": "tracewire_match", "policy": "tracewire_witnesses", "evidence": "tracewire_evidence"}
if sys.argv[1:2] in ([], ["-h"], ["--help"]):
    print(f"{__doc__}\nEach has --help of its own.")
    sys.exit(0 if sys.argv[1:] else 2)
own = sys.argv[1] in PROGRAMS
try:
    program = import_module(PROGRAMS.get(sys.argv[1], "tracewire_verify"))
except ImportError as error:  # that says nothing about what was to be checked
    print(f"{error}: install cryptography 50 or newer, with ML-DSA", file=sys.stderr)
    sys.exit(2)
sys.exit(program.main(sys.argv[1 + own :]))
