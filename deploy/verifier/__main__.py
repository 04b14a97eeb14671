"""All programs as one file: `python tracewire-verify.pyz log | proof | fork | match | policy | evidence ...` (`make verifier`)."""

import sys

import tracewire_evidence
import tracewire_match
import tracewire_verify
import tracewire_witnesses

PROGRAMS = {"match": tracewire_match.main, "policy": tracewire_witnesses.main, "evidence": tracewire_evidence.main}
if sys.argv[1:2] in ([], ["-h"], ["--help"]):
    print(f"{__doc__}\nEach has --help of its own.")
    sys.exit(0 if sys.argv[1:] else 2)
if sys.argv[1] in PROGRAMS:
    sys.exit(PROGRAMS[sys.argv[1]](sys.argv[2:]))
sys.exit(tracewire_verify.main())
