"""All programs as one file: `python tracewire-verify.pyz log | match | proof | policy | evidence ...` (`make verifier`)."""

import sys

import tracewire_evidence
import tracewire_verify
import tracewire_witnesses

if sys.argv[1:2] == ["evidence"]:
    sys.exit(tracewire_evidence.main(sys.argv[2:]))
if sys.argv[1:2] == ["policy"]:
    sys.exit(tracewire_witnesses.main(sys.argv[2:]))
sys.exit(tracewire_verify.main())
