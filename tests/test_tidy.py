"""The rules of the house that no linter knows: sizes of functions and files, docstrings, lines shipped per package.

Run as a program it prints the shipped lines per package (for `make check`).
"""

import ast
import gc
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("gateway", "protocols", "adapters", "keys", "deploy")
FUNCTION_LINES_MAX = 60
FILE_LINES_MAX = 500
EXCEPTIONS = {
    # name -> why; at most three
    "adapters/postgres/migrations/versions/0001_the_first_schema.py:upgrade": "alembic's own output: one statement a table",
}
TOP = {"gateway", "protocols", "adapters", "keys", "deploy", "tests", "docs", ".ci", "pyproject.toml", "README.md",
       "Makefile", "CHANGELOG.md", "LICENSE", "NOTICE", ".gitignore"}  # fmt: skip


def _sources() -> list[Path]:
    return sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _parsed(path: Path) -> ast.Module:
    """CPython 3.11 loses count of its depth where garbage is collected while a tree is built (SystemError)."""
    gc.disable()
    try:
        return ast.parse(path.read_text())
    finally:
        gc.enable()


def _long_functions(path: Path) -> list[str]:
    found = []
    for node in ast.walk(_parsed(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or 0) - node.lineno + 1
            docstring = node.body[0] if ast.get_docstring(node) else None
            if docstring is not None:  # help texts are for people, not complexity
                lines -= (docstring.end_lineno or 0) - docstring.lineno + 1
            if lines > FUNCTION_LINES_MAX:
                found.append(f"{_name(path)}:{node.name}")
    return found


def test_no_function_is_longer_than_a_screen():
    found = {each for path in _sources() for each in _long_functions(path)}
    assert found - EXCEPTIONS.keys() == set()
    assert EXCEPTIONS.keys() <= found, "an exception that nobody needs any more"
    assert len(EXCEPTIONS) <= 3


def test_no_file_is_longer_than_five_hundred_lines():
    assert [_name(path) for path in _sources() if len(path.read_text().splitlines()) > FILE_LINES_MAX] == []


def test_every_module_says_what_it_is_for():
    empty = {"gateway/__init__.py"}
    found = {_name(path) for path in _sources() if not ast.get_docstring(_parsed(path))}
    assert found == empty
    assert (ROOT / "gateway/__init__.py").read_text() == ""


def test_the_top_level_holds_nothing_else():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout
    assert {name.partition("/")[0] for name in listed.split()} <= TOP


@pytest.mark.parametrize("patch", sorted((ROOT / "tests/fault/mutants").glob("*.patch")), ids=lambda path: path.stem)
def test_a_mutant_still_applies(patch):
    done = subprocess.run(["git", "apply", "--check", patch], cwd=ROOT, capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr


def test_a_seeded_violation_breaks_the_import_contracts(tmp_path):
    for package in ("gateway", "protocols", "adapters", "keys"):
        target = tmp_path / package
        subprocess.run(["cp", "-r", str(ROOT / package), str(target)], check=True)
    (tmp_path / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())
    linter = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    whole = subprocess.run(linter, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert whole.returncode == 0, whole.stdout
    seeds = {
        "protocols/problems.py": "import keys.suite",
        "gateway/services/prove.py": "import adapters.peers.http",
        "adapters/peers/http.py": "import cryptography",
    }
    for name, line in seeds.items():
        path = tmp_path / name
        text = path.read_text()
        path.write_text(text + f"\n{line}\n")
        broken = subprocess.run(linter, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert broken.returncode != 0, name
        path.write_text(text)


if __name__ == "__main__":
    for package in PACKAGES:
        lines = [
            line
            for path in (ROOT / package).rglob("*.py")
            for line in path.read_text().splitlines()
            if line.strip() and not line.strip().startswith("#")
        ]
        sys.stdout.write(f"{package:<10} {len(lines):>6} lines\n")
