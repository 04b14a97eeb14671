"""`make mutants`: each patch under mutants/ is a mistake that somebody could make; the tests it names must catch it.

Each is applied to a copy of the tree. One that no longer applies, and one that nobody catches, is a failure. The last line
printed is one JSON object.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
PATCHES = Path(__file__).with_name("mutants")
TREE = ("gateway", "protocols", "adapters", "keys", "deploy", "docs", "tests", "pyproject.toml", "README.md")
TEST_S = 600


def caught_by(patch: Path) -> list[str]:
    """The tests that a patch names."""
    (line,) = [line for line in patch.read_text().splitlines() if line.startswith("Caught by: ")]
    return line.removeprefix("Caught by: ").split()


def judge(patch: Path | None, tests: list[str]) -> str:
    """`caught`, or else: `no longer applies`, `survived` (as the tree without a patch has to), `broken` where nothing ran."""
    folder = Path(tempfile.mkdtemp(prefix="tw-mutant-"))
    try:
        for name in TREE:
            source = ROOT / name
            ignored = shutil.ignore_patterns("__pycache__", ".*_cache")
            shutil.copytree(source, folder / name, ignore=ignored) if source.is_dir() else shutil.copy(source, folder)
        if patch and subprocess.run(["git", "apply", str(patch)], cwd=folder, check=False).returncode:
            return "no longer applies"
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=TEST_S, check=False)
        words = {0: "survived", 1: "caught"}
        return words.get(done.returncode, f"broken: {done.stdout[-400:]}{done.stderr[-400:]}")
    except subprocess.TimeoutExpired:
        return "caught"  # it hangs: somebody waits for what never comes
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*", help="only these")
    names = parser.parse_args().names
    patches = [each for each in sorted(PATCHES.glob("*.patch")) if not names or each.stem in names]
    every = sorted({test for patch in patches for test in caught_by(patch)})
    whole = judge(None, every)
    print(f"{whole:<18} the tree itself, under all of these tests", flush=True)
    wrong = {} if whole == "survived" else {"the tree itself": whole}
    for patch in patches:
        began = time.monotonic()
        said = judge(patch, caught_by(patch))
        print(f"{said:<18} {patch.stem} ({time.monotonic() - began:.0f} s)", flush=True)
        if said != "caught":
            wrong[patch.stem] = said
    print(
        json.dumps(
            {"mutants": len(patches), "caught": len(patches) - len(wrong.keys() - {"the tree itself"}), "wrong": wrong}
        )
    )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
