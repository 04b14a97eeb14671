"""The catalogue is whole: every fault has a test that is there, or says what is open."""

import re

import pytest

from tests.attacks.test_catalogue import ROOT, named_in
from tests.fault.catalogue import CATALOGUE, CRASH, OPEN
from tests.fault.points import POINTS

LIST = ROOT.parent / "shared" / "faults.yaml"
COUNT = 70


def test_every_fault_is_in_the_catalogue_once() -> None:
    assert not CATALOGUE.keys() & OPEN.keys()
    assert len(CATALOGUE) + len(OPEN) == COUNT
    assert all(OPEN.values())
    if not LIST.exists():
        pytest.skip("no shared/faults.yaml here: its list of ids is not compared")
    listed = set(re.findall(r"(?m)^- id: ([A-Z]\d\d)$", LIST.read_text().partition("\nfaults:")[2]))
    assert listed == CATALOGUE.keys() | OPEN.keys()


def test_every_named_test_is_there() -> None:
    missing = {fault for fault, (path, _, name) in _named().items() if name not in named_in(path)[0]}
    assert not missing


def test_what_the_crash_points_are_said_to_show_they_show() -> None:
    shown = {fault for fault, test in CATALOGUE.items() if test == CRASH}
    assert shown == {point.id for point in POINTS}


def _named() -> dict[str, tuple[str, str, str]]:
    return {fault: test.partition("::") for fault, test in CATALOGUE.items()}
