"""Writes protocols/schemas/ and docs/messages.md: `python tests/protocols/make_schemas.py [folder]`."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

sys.path.insert(0, str(Path(__file__).parents[2]))

from pydantic import BaseModel  # noqa: E402

from protocols.codes import LISTS, SOURCES, label, languages  # noqa: E402
from protocols.messages import PARTS, TYPES, Handling, json_schema  # noqa: E402
from protocols.messages.fields import meanings  # noqa: E402
from tests.protocols.bodies import BROKEN, VALID  # noqa: E402

ROOT = Path(__file__).parents[2]
FOLDER, PAGE = ROOT / "protocols/schemas", ROOT / "docs/messages.md"
HEAD = """# The messages

What every message of a trace says, for whoever drafts the law behind it and whoever writes the program. Made from the models
(`protocols/messages/`) by `tests/protocols/make_schemas.py`; the JSON Schemas are in `protocols/schemas/`, a valid body of every type and one for each broken
rule in `protocols/vectors/bodies.json`. ITI is the UN International Tracing Instrument (2005), ATF the form 3312.1 of the United States' National Tracing
Center (named from memory), NIEM the National Information Exchange Model 6. A member with a `*` is required; `[]` is a list; a coded member is a pair
`{"code", "raw"}` whose `raw` keeps the words that it was read from.
"""


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models of an annotation."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for each in get_args(annotation):
        yield from models_in(each)


def all_models() -> list[type[BaseModel]]:
    """Every model, in the order of the types that use it; the pair of a code apart."""
    found: dict[type[BaseModel], None] = {}

    def walk(model: type[BaseModel]) -> None:
        if model in found or model.__name__ == "Coded":
            return
        found[model] = None
        for field in model.model_fields.values():
            for each in models_in(field.annotation):
                walk(each)

    for model in (*TYPES.values(), Handling, *PARTS.values()):
        walk(model)
    return list(found)


def _shape(field: Any) -> str:
    names = [each.__name__ for each in models_in(field.annotation)]
    many = "[]" if "tuple" in str(field.annotation) else ""
    return ", ".join(f"`{name}`" if name == "Coded" else f"[{name}](#{name.lower()})" for name in names) + many


def _table(model: type[BaseModel]) -> list[str]:
    lines = ["| member | is | meaning | source | ATF, NIEM |", "|---|---|---|---|---|"]
    for name, field in model.model_fields.items():
        shown = field.alias or name
        said = meanings()[model.__name__, shown]
        star = "*" if field.is_required() else ""
        mapped = "; ".join(each for each in (said.atf, said.niem) if each)
        lines.append(f"| `{shown}`{star} | {_shape(field)} | {said.meaning} | {said.source} | {mapped} |")
    return lines


def page() -> str:
    """docs/messages.md."""
    lines = [HEAD, "## Types", ""]
    by_model = {model: type_ for type_, model in TYPES.items()}
    for model in all_models():
        if model not in by_model:
            continue
        type_ = by_model[model]
        rules = [f"- refused: {rule}" for named, rule, *_ in BROKEN if named == type_]
        about = " ".join((model.__doc__ or "").split())
        example = json.dumps(VALID[type_], ensure_ascii=False)
        lines += [f"### {type_}", "", about, "", *_table(model), "", *rules, "", "```json", example, "```", ""]
    lines += ["## What they share", ""]
    for model in all_models():
        if model not in by_model:
            lines += [f"### {model.__name__}", "", " ".join((model.__doc__ or "").split()), "", *_table(model), ""]
    lines += [
        "## Codes",
        "",
        f"Labels in {', '.join(languages())} are in `protocols/codes/labels.json`; here the English ones.",
        "",
    ]
    for name, codes in LISTS.items():
        if name != "country":
            shown = ", ".join(f"`{code}` {label(name, code)}" for code in sorted(codes))
            lines += [f"- **{name}** ({SOURCES[name]}): {shown}"]
    return "\n".join(lines) + "\n"


def main(folder: Path) -> None:
    """Writes every schema."""
    folder.mkdir(exist_ok=True)
    for type_ in TYPES:
        text = json.dumps(json_schema(type_), ensure_ascii=False, indent=1) + "\n"
        (folder / f"{type_}.schema.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
    PAGE.write_text(page(), encoding="utf-8")
