"""Writes protocols/schemas/: `python tests/protocols/make_schemas.py [folder]`, a JSON Schema for every message body."""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from protocols.messages import TYPES, json_schema  # noqa: E402

FOLDER = Path(__file__).parents[2] / "protocols/schemas"


def main(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    for type_ in TYPES:
        text = json.dumps(json_schema(type_), ensure_ascii=False, indent=1) + "\n"
        (folder / f"{type_}.schema.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
