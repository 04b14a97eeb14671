"""The typed lines of a POST and its answer, `application/x-ndjson` (docs/protocol.md section 4)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from protocols.ledger.entry import count, digest
from protocols.ledger.linking import Link
from protocols.ledger.proof import Place
from protocols.limits import (
    ENTRY_BYTES_MAX,
    ENVELOPE_BYTES_MAX,
    HELD_SIZES_MAX,
    NOTE_BYTES_MAX,
    PARCELS_MAX,
    PATH_HASHES_MAX,
    POST_BYTES_MAX,
)
from protocols.problems import CODES, ProblemError
from protocols.strict import b64u, dump_json, parse_object

MEDIA_TYPE = "application/x-ndjson"
_CHECKPOINTS_MAX = 2 * PARCELS_MAX
_ORIGINS_MAX = 64
_LINKS_MAX = 2 * (HELD_SIZES_MAX + 1)  # along the sizes that two members named: a POST and the hub that carries it
_LINE_BYTES_MAX = 2 * ENVELOPE_BYTES_MAX + 16 * ENTRY_BYTES_MAX


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """First line: our directory version; per origin the sizes held of the other's ledger, newest linked first, and links."""

    dir_version: int
    held: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    links: Mapping[str, tuple[Link, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parcel:
    """An envelope with the sender's proof; the path leads to the checkpoint line of (origin, size)."""

    place: Place
    envelope: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """The receiver's proof of arrival, refusal or conflict."""

    place: Place


@dataclass(frozen=True, slots=True, kw_only=True)
class ProblemLine:
    """A parcel that made no entry: a problem document; retry as it says."""

    code: str
    detail: str


Answer = Receipt | ProblemLine


@dataclass(frozen=True, slots=True, kw_only=True)
class Post:
    """A POST (items are parcels) or its answer (items are receipts or problems, in the parcels' order).

    `checkpoints` are notes by (origin, size) that nobody has verified yet.
    """

    hello: Hello
    checkpoints: Mapping[tuple[str, int], bytes]
    items: tuple[Any, ...] = ()


def _place(kind: str, place: Place) -> dict[str, Any]:
    return {
        "t": kind,
        "origin": place.origin,
        "size": place.size,
        "index": place.index,
        "path": [b64u(value) for value in place.path],
        "entry": place.entry.decode(),
    }


def _item(item: Parcel | Answer) -> dict[str, Any]:
    match item:
        case Parcel():
            return {**_place("parcel", item.place), "envelope": item.envelope.decode()}
        case Receipt():
            return _place("receipt", item.place)
        case ProblemLine():
            return {"t": "problem", "problem": ProblemError(item.code, item.detail).document("peer-node")}


def encode_post(post: Post) -> bytes:
    """The lines' bytes, each ended by a newline."""
    hello: dict[str, Any] = {"t": "hello", "v": 1, "dir": post.hello.dir_version, "held": dict(post.hello.held)}
    hello["links"] = {
        origin: [{"old": link.old, "new": link.new, "path": [b64u(value) for value in link.path]} for link in links]
        for origin, links in post.hello.links.items()
    }
    lines = [dump_json(hello)]
    for (origin, size), note in post.checkpoints.items():
        lines.append(dump_json({"t": "checkpoint", "origin": origin, "size": size, "note": note.decode()}))
    lines += [dump_json(_item(item)) for item in post.items]
    return b"\n".join(lines) + b"\n"


def merge(posts: Sequence[Post]) -> Post:
    """Several POSTs, or answers, of one speaker to one other as one: all that they prove, the last one's `held`."""
    links: dict[str, dict[tuple[int, int], Link]] = {}
    for post in posts:
        for origin, found in post.hello.links.items():
            links.setdefault(origin, {}).update({(link.old, link.new): link for link in found})
    hello = Hello(
        dir_version=max(post.hello.dir_version for post in posts),
        held={origin: sizes for post in posts for origin, sizes in post.hello.held.items()},
        links={origin: tuple(found.values())[-_LINKS_MAX:] for origin, found in links.items()},
    )
    checkpoints = {key: note for post in posts for key, note in post.checkpoints.items()}
    return Post(hello=hello, checkpoints=checkpoints, items=tuple(item for post in posts for item in post.items))


def _bad(detail: str) -> ProblemError:
    return ProblemError("schema.invalid", detail)


def _text(value: Any, chars_max: int) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= chars_max:
        raise _bad("not a text")
    return value


def _list(value: Any, items_max: int) -> list[Any]:
    if not isinstance(value, list) or len(value) > items_max:
        raise _bad(f"not a list of up to {items_max}")
    return value


def _closed(found: Any, members: str) -> dict[str, Any]:
    if not isinstance(found, dict) or found.keys() != set(members.split()):
        raise _bad(f"the members are {members}")
    return found


def _by_origin(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict) or len(value) > _ORIGINS_MAX:
        raise _bad(f"not an object of up to {_ORIGINS_MAX} origins")
    return value


def _hashes(value: Any) -> tuple[bytes, ...]:
    return tuple(digest(each) for each in _list(value, PATH_HASHES_MAX))


def _hello(found: Any) -> Hello:
    _closed(found, "t v dir held links")
    if found["v"] != 1 or type(found["v"]) is not int:
        raise _bad("unknown version")
    return Hello(
        dir_version=count(found["dir"]),
        held={
            origin: tuple(count(size) for size in _list(sizes, HELD_SIZES_MAX))
            for origin, sizes in _by_origin(found["held"]).items()
        },
        links={
            origin: tuple(
                Link(old=count(link["old"]), new=count(link["new"]), path=_hashes(link["path"]))
                for link in (_closed(each, "old new path") for each in _list(links, _LINKS_MAX))
            )
            for origin, links in _by_origin(found["links"]).items()
        },
    )


def _read_place(found: dict[str, Any]) -> Place:
    return Place(
        origin=_text(found["origin"], 255),
        size=count(found["size"]),
        index=count(found["index"]),
        path=_hashes(found["path"]),
        entry=_text(found["entry"], ENTRY_BYTES_MAX).encode(),
    )


def _read_item(found: dict[str, Any], wanted: Sequence[str]) -> Parcel | Answer:
    kind = found.get("t")
    if kind not in wanted:
        raise _bad("a line of a type that may not stand here")
    if kind == "parcel":
        if found.keys() == {"t", "envelope"}:
            raise ProblemError("proof.missing", "a parcel without the sender's proof")
        _closed(found, "t origin size index path entry envelope")
        return Parcel(place=_read_place(found), envelope=_text(found["envelope"], ENVELOPE_BYTES_MAX).encode())
    if kind == "receipt":
        _closed(found, "t origin size index path entry")
        return Receipt(place=_read_place(found))
    problem = _closed(found, "t problem")["problem"]
    code = problem.get("code") if isinstance(problem, dict) else None
    if not isinstance(code, str):
        raise _bad("a problem without a code")
    if code not in CODES:  # a newer peer's: the other lines' receipts still count
        code = "peer.answer"
    return ProblemLine(code=code, detail=CODES[code].title)  # a peer's own words are not repeated


def parse_post(data: bytes, *, answer: bool) -> Post:
    """The lines of a POST or of its answer; ProblemError for anything else."""
    if len(data) > POST_BYTES_MAX:
        raise ProblemError("http.too_large", f"more than {POST_BYTES_MAX} bytes")
    if not data.endswith(b"\n"):
        raise _bad("the last line does not end")
    lines = data[:-1].split(b"\n")
    if len(lines) > 1 + _CHECKPOINTS_MAX + PARCELS_MAX:
        raise ProblemError("http.too_large", "too many lines")
    found = [parse_object(line, bytes_max=_LINE_BYTES_MAX) for line in lines]
    if found[0].get("t") != "hello":
        raise _bad("the first line is hello")
    checkpoints: dict[tuple[str, int], bytes] = {}
    items: list[Parcel | Answer] = []
    for line in found[1:]:
        if line.get("t") == "checkpoint" and not items:
            _closed(line, "t origin size note")
            key = _text(line["origin"], 255), count(line["size"])
            if key in checkpoints:
                raise _bad("two checkpoint lines of one origin and size")
            checkpoints[key] = _text(line["note"], NOTE_BYTES_MAX).encode()
        else:
            items.append(_read_item(line, ("receipt", "problem") if answer else ("parcel",)))
    if len(items) > PARCELS_MAX:
        raise ProblemError("http.too_large", f"more than {PARCELS_MAX} parcels")
    return Post(hello=_hello(found[0]), checkpoints=checkpoints, items=tuple(items))
