"""docs/threats.md promises only what a test shows, and every test that it names exists."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs/threats.md").read_text()
NAMED = re.findall(r"`(tests/[a-z0-9_/]+\.py)::(test_\w+)`", TEXT)


def names_in(path: Path) -> set[str]:
    found = ast.walk(ast.parse(path.read_text())) if path.exists() else ()
    return {node.name for node in found if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_every_test_that_is_named_exists() -> None:
    assert len(NAMED) > 40
    assert [f"{file}::{test}" for file, test in NAMED if test not in names_in(ROOT / file)] == []


def test_every_promise_names_a_test() -> None:
    rows = [
        line
        for section in TEXT.split("| cannot | shown by |\n|---|---|\n")[1:]
        for line in section.split("\n\n")[0].split("\n")
    ]
    assert len(rows) > 40
    assert [row for row in rows if not re.search(r"`tests/[a-z0-9_/]+\.py::test_\w+`", row)] == []


def test_every_actor_has_its_promises_and_its_limits() -> None:
    actors = TEXT.partition("## 3. Actors")[2].partition("\n## 4.")[0].split("\n### ")[1:]
    assert len(actors) == 9
    for actor in actors:
        assert "| cannot | shown by |" in actor, actor[:40]
    assert "## 4. What remains" in TEXT
