"""The catalogue is whole: every attack has a test that is there, or the issue that it waits for."""

import ast
import re
from pathlib import Path

import pytest

from protocols.problems import CODES as KNOWN
from tests.attacks.catalogue import CATALOGUE, CODES, WAITS

ROOT = Path(__file__).parents[2]
LIST = ROOT.parent / "shared" / "attacks.yaml"
COUNT = 158


def named_in(path: str) -> tuple[set[str], set[str]]:
    """The names of a file's tests, and the words (as the ids of its parameters) that stand in it."""
    tree = ast.parse((ROOT / path).read_text())
    names = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    words = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    return names, words


def test_every_attack_is_in_the_catalogue_once() -> None:
    assert not CATALOGUE.keys() & WAITS.keys()
    listed = CATALOGUE.keys() | WAITS.keys()
    assert all(re.fullmatch(r"[A-Z]\d\d", each) for each in listed)
    assert len(listed) == COUNT
    assert all(WAITS.values())


def test_the_catalogue_is_the_list_of_attacks() -> None:
    if not LIST.exists():
        pytest.skip("no shared/attacks.yaml here: its list of ids is not compared")
    listed = set(re.findall(r"(?m)^- id: (\w+)$", LIST.read_text()))
    assert len(listed) == COUNT
    assert listed == CATALOGUE.keys() | WAITS.keys()


def test_every_named_test_is_there() -> None:
    missing = []
    for attack, named in CATALOGUE.items():
        path, _, test = named.partition("::")
        name, _, parameter = test.partition("[")
        names, words = named_in(path) if (ROOT / path).is_file() else (set(), set())
        if not name.startswith("test_") or name not in names or (parameter and parameter.rstrip("]") not in words):
            missing.append((attack, named))
    assert not missing


def test_a_code_that_goes_by_another_name_is_one_of_ours() -> None:
    entry_codes = {"expired"}
    assert set(CODES.values()) <= KNOWN.keys() | entry_codes
    assert not CODES.keys() & KNOWN.keys(), "a code of ours needs no other name"
    if LIST.exists():
        assert all(code in LIST.read_text() for code in CODES)
