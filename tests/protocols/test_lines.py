"""The typed lines of a POST and of its answer: closed members, bounds, order."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.exchange.lines import Hello, Parcel, Post, ProblemLine, Receipt, encode_post, parse_post
from protocols.ledger.linking import Link
from protocols.ledger.proof import Place
from protocols.limits import PARCELS_MAX, POST_BYTES_MAX
from protocols.problems import CODES
from protocols.strict import b64u, dump_json
from tests.protocols.forms import code_of, counts, digests, hostile, json_values, texts, total, words

LINK = Link(old=0, new=5, path=())
HELLO = Hello(dir_version=7, held={"net/b/2026.1": (0, 9)}, links={"net/a/2026.1": (LINK,)})
PLACE = Place(origin="net/a/2026.1", size=9, index=3, path=(bytes(32), bytes(range(32))), entry=b'{"v":1}')
NOTES = {("net/a/2026.1", 9): b"net/a/2026.1\n9\n"}
POST = Post(hello=HELLO, checkpoints=NOTES, items=(Parcel(place=PLACE, envelope=b"{}"),))
ANSWER = Post(
    hello=HELLO,
    checkpoints=NOTES,
    items=(Receipt(place=PLACE), ProblemLine(code="dir.stale", detail=CODES["dir.stale"].title)),
)

_origins = words | texts.filter(bool)
_places = st.builds(
    Place,
    origin=_origins,
    size=counts,
    index=counts,
    path=st.lists(digests, max_size=4).map(tuple),
    entry=texts.filter(bool).map(str.encode),
)
_hellos = st.builds(
    Hello,
    dir_version=counts,
    held=st.dictionaries(texts, st.lists(counts, max_size=4).map(tuple), max_size=3),
    links=st.dictionaries(
        texts,
        st.lists(
            st.builds(Link, old=counts, new=counts, path=st.lists(digests, max_size=3).map(tuple)), max_size=3
        ).map(tuple),
        max_size=3,
    ),
)
_parcels = st.builds(Parcel, place=_places, envelope=texts.filter(bool).map(str.encode))
_answers = st.builds(Receipt, place=_places) | st.sampled_from(sorted(CODES)).map(
    lambda code: ProblemLine(code=code, detail=CODES[code].title)
)


def posts(items: st.SearchStrategy[Any]) -> st.SearchStrategy[Post]:
    notes = st.dictionaries(st.tuples(_origins, counts), texts.filter(bool).map(str.encode), max_size=3)
    return st.builds(Post, hello=_hellos, checkpoints=notes, items=st.lists(items, max_size=4).map(tuple))


@given(posts(_parcels))
def test_a_post_is_read_back(post: Post) -> None:
    assert parse_post(encode_post(post), answer=False) == post


@given(posts(_answers))
def test_an_answer_is_read_back(post: Post) -> None:
    assert parse_post(encode_post(post), answer=True) == post


@given(hostile(encode_post(POST)), st.booleans())
def test_any_bytes_are_a_post_or_a_problem(data: bytes, answer: bool) -> None:
    total(parse_post, data, answer=answer)


@given(hostile(encode_post(ANSWER)))
def test_any_bytes_are_an_answer_or_a_problem(data: bytes) -> None:
    total(parse_post, data, answer=True)


@given(st.integers(0, 4), st.data())
def test_members_of_any_type_are_a_post_or_a_problem(number: int, data: st.DataObject) -> None:
    which = data.draw(st.sampled_from([POST, ANSWER]))
    lines = [json.loads(line) for line in encode_post(which).splitlines()]
    line = lines[number % len(lines)]
    name = data.draw(st.sampled_from(sorted(line)))
    line[name] = data.draw(json_values | st.dictionaries(st.sampled_from(["code", "net/b/2026.1"]), json_values))
    total(parse_post, joined(*lines), answer=which is ANSWER)


def joined(*lines: Any) -> bytes:
    return b"".join((line if isinstance(line, bytes) else dump_json(line)) + b"\n" for line in lines)


H, C, P = (json.loads(line) for line in encode_post(POST).splitlines())
_, _, R, E = (json.loads(line) for line in encode_post(ANSWER).splitlines())
MANY = [{**P, "index": i} for i in range(PARCELS_MAX + 1)]
L = {"old": 0, "new": 5, "path": []}
BAD: list[tuple[str, bytes, str]] = [
    ("nothing", b"", "schema.invalid"),
    ("an empty line", b"\n", "json.invalid"),
    ("no newline at the end", joined(H, C, P)[:-1], "schema.invalid"),
    ("an empty line more", joined(H, C, P) + b"\n", "json.invalid"),
    ("no hello", joined(C, P), "schema.invalid"),
    ("hello twice", joined(H, H), "schema.invalid"),
    ("a checkpoint after a parcel", joined(H, P, C), "schema.invalid"),
    ("a checkpoint twice", joined(H, C, C, P), "schema.invalid"),
    ("a line without type", joined(H, {}), "schema.invalid"),
    ("an unknown type", joined(H, {"t": "x"}), "schema.invalid"),
    ("a type that is a list", joined(H, {"t": []}), "schema.invalid"),
    ("a receipt in a POST", joined(H, C, R), "schema.invalid"),
    ("a problem in a POST", joined(H, E), "schema.invalid"),
    ("a line that is a list", joined(H, []), "json.invalid"),
    ("an unknown version", joined(H | {"v": 2}), "schema.invalid"),
    ("a version that is true", joined(H | {"v": True}), "schema.invalid"),
    ("hello with more", joined(H | {"x": 1}), "schema.invalid"),
    ("hello without links", joined({k: v for k, v in H.items() if k != "links"}), "schema.invalid"),
    ("dir below zero", joined(H | {"dir": -1}), "entry.invalid"),
    ("held a list", joined(H | {"held": []}), "schema.invalid"),
    ("18 held sizes", joined(H | {"held": {"o": list(range(18))}}), "schema.invalid"),
    ("held of 65 origins", joined(H | {"held": {str(i): [0] for i in range(65)}}), "schema.invalid"),
    ("a held size as text", joined(H | {"held": {"o": ["1"]}}), "entry.invalid"),
    ("37 links", joined(H | {"links": {"o": [L] * 37}}), "schema.invalid"),
    ("a link with more", joined(H | {"links": {"o": [L | {"x": 1}]}}), "schema.invalid"),
    ("a link without path", joined(H | {"links": {"o": [{"old": 0, "new": 5}]}}), "schema.invalid"),
    ("a link of 64 hashes", joined(H | {"links": {"o": [L | {"path": [b64u(bytes(32))] * 64}]}}), "schema.invalid"),
    ("a hash of 31 bytes", joined(H, C, P | {"path": [b64u(bytes(31))]}), "b64.invalid"),
    ("a path of 64 hashes", joined(H, C, P | {"path": [b64u(bytes(32))] * 64}), "schema.invalid"),
    ("a parcel without proof", joined(H, {"t": "parcel", "envelope": "{}"}), "proof.missing"),
    ("a parcel without entry", joined(H, C, {k: v for k, v in P.items() if k != "entry"}), "schema.invalid"),
    ("a parcel with more", joined(H, C, P | {"x": 1}), "schema.invalid"),
    ("an envelope that is an object", joined(H, C, P | {"envelope": {}}), "schema.invalid"),
    ("an empty envelope", joined(H, C, P | {"envelope": ""}), "schema.invalid"),
    ("an envelope above 1 MiB", joined(H, C, P | {"envelope": "x" * (1 << 20 | 1)}), "schema.invalid"),
    ("an entry above 2 KiB", joined(H, C, P | {"entry": "x" * 2049}), "schema.invalid"),
    ("a negative index", joined(H, C, P | {"index": -1}), "entry.invalid"),
    ("a fraction", joined(H, dump_json(C).replace(b'"size":9', b'"size":9.0'), P), "json.number"),
    ("a note above 64 KiB", joined(H, C | {"note": "x" * (1 << 16 | 1)}), "schema.invalid"),
    ("a member twice", joined(H, dump_json(C)[:-1] + b',"size":9}'), "json.duplicate"),
    ("257 parcels", joined(H, C, *MANY), "http.too_large"),
    ("a line too long", joined(H, C, P | {"envelope": "x" * (2 << 20)}), "schema.invalid"),
    ("a line far too long", joined(H, C, P | {"envelope": "x" * (3 << 20)}), "json.too_large"),
    ("above 8 MiB", joined(H) + b" " * POST_BYTES_MAX + b"\n", "http.too_large"),
    ("above 8 MiB, cut", joined(H) + b" " * POST_BYTES_MAX, "http.too_large"),
    ("1,000 lines", joined(H, *([E] * 1000)), "http.too_large"),
]  # fmt: skip


@pytest.mark.parametrize(("data", "code"), [(data, code) for _, data, code in BAD], ids=[name for name, *_ in BAD])
def test_a_post_with_one_fault_is_refused(data: bytes, code: str) -> None:
    assert code_of(parse_post, data, answer=False) == code


@pytest.mark.parametrize(
    ("line", "code"),
    [(P, "schema.invalid"), (R | {"envelope": "{}"}, "schema.invalid"), ({"t": "problem"}, "schema.invalid"),
     (E | {"x": 1}, "schema.invalid"), ({"t": "problem", "problem": []}, "schema.invalid"),
     ({"t": "problem", "problem": {}}, "schema.invalid"),
     ({"t": "problem", "problem": {"code": []}}, "schema.invalid"), ({"t": "problem", "problem": {"code": {}}}, "schema.invalid"),
     ({"t": "problem", "problem": {"code": None}}, "schema.invalid")],
)  # fmt: skip
def test_an_answer_with_one_fault_is_refused(line: dict[str, Any], code: str) -> None:
    assert code_of(parse_post, joined(H, C, line), answer=True) == code


def test_the_most_of_everything_is_taken() -> None:
    whole = H | {"held": {str(i): list(range(17)) for i in range(64)}, "links": {"o": [L] * 36}}
    assert len(parse_post(joined(whole, C, *MANY[:-1]), answer=False).items) == PARCELS_MAX


def test_a_peers_own_words_are_not_repeated() -> None:
    said = {"t": "problem", "problem": {"code": "store.busy", "detail": "a name"}}
    assert parse_post(joined(H, said), answer=True).items == (
        ProblemLine(code="store.busy", detail=CODES["store.busy"].title),
    )


def test_a_problem_code_that_we_do_not_know_costs_only_its_own_line():
    lines = b'{"t":"hello","v":1,"dir":1,"held":{},"links":{}}\n{"t":"problem","problem":{"code":"newer.than.us"}}\n'
    assert [item.code for item in parse_post(lines, answer=True).items] == ["peer.answer"]
