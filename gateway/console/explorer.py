"""The auditor's pages: ledgers, their entries, figures, threads and gaps. Read without JavaScript; verified in the browser with it."""

import csv
import io
from base64 import b64encode
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from hashlib import sha256
from importlib import resources
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from aiohttp import web
from jinja2 import ChoiceLoader, Environment, PackageLoader

from gateway.console.words import DIFFERENCES, sentence
from gateway.services.explore import Cosigned, Explore, Logged, Page, Wanted
from protocols.ledger.entry import KINDS, Entry, parse_entry, uuid7
from protocols.ledger.reconcile import Difference, Direction
from protocols.limits import ENTRY_BYTES_MAX
from protocols.ports.rows import Contradiction, Gap
from protocols.problems import CODES, ProblemError
from protocols.strict import format_time, parse_json

Endpoint = Callable[[web.Request], Awaitable[web.StreamResponse]]
_templates = Environment(
    loader=ChoiceLoader([PackageLoader("gateway.console"), PackageLoader("gateway.http")]),
    autoescape=True, trim_blocks=True, lstrip_blocks=True,
)  # fmt: skip
_templates.globals["sentence"], _templates.filters["time"] = sentence, format_time
_COUNT = 100
_CSV_MAX = 20_000
_DIFFERENCES_MAX = 1_000
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; worker-src 'self'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'; require-trusted-types-for 'script'; trusted-types tracewire"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_FILES = {
    "audit.js": "text/javascript",
    "worker.js": "text/javascript",
    "audit.css": "text/css",
    "icon.svg": "image/svg+xml",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """An entry of another member about the same message, as this node keeps it; whether its proof holds."""

    origin: str
    index: int
    data: bytes
    holds: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Inside:
    """What only the member's own node knows: what its ledger says of a thread, what does not fit.

    `alarms`: of a ledger, the problem code.
    """

    trail: Callable[[UUID], Awaitable[list[dict[str, Any]]]]
    gaps: Callable[[], Awaitable[list[tuple[Gap, bool]]]]
    twice: Callable[[], Awaitable[list[Contradiction]]]
    alarms: Callable[[], Mapping[str, str]]


@dataclass(slots=True, kw_only=True)
class Compared:
    """What two ledgers say of the messages between them, as far as `read` of `total` entries tell; `problem` where one does not hold."""

    read: int = 0
    total: int = 0
    directions: Sequence[Direction] = ()
    found: Sequence[Difference] | None = None
    problem: str = ""


class Explorer:
    """The pages over a source of ledgers; `inside` where they are served by the node itself."""

    def __init__(
        self,
        explore: Explore,
        *,
        inside: Inside | None = None,
        beside: Callable[[Entry], Awaitable[list[Beside]]] | None = None,
        compared: Compared | None = None,
        trusted: bool = False,
        vouched: bool = True,
    ) -> None:
        """`beside`: what another member's ledger says of the same message, where that is known here; `compared`: the two as a whole.

        `trusted`: the pages come from the auditor's own machine; `vouched`: the keys do not come from beside the ledger.
        """
        self._explore, self._inside, self._beside = explore, inside, beside
        self._compared, self._trusted, self._vouched = compared, trusted, vouched

    def routes(self, guard: Callable[[Endpoint], Endpoint]) -> list[web.RouteDef]:
        """Every page behind a guard; script and style in front of it."""
        log = "/audit/ledgers/{log}"
        pages = [
            ("/audit", self.get_ledgers), (log, self.get_ledger), (f"{log}/entries.csv", self.get_csv),
            (f"{log}/entries/{{index}}", self.get_entry), (f"{log}/figures", self.get_figures),
            (f"{log}/tile/{{tile:.+}}", self.get_tile),
        ]  # fmt: skip
        if self._inside:
            pages += [("/audit/threads", self.get_thread), ("/audit/gaps", self.get_gaps)]
        if self._compared:
            pages += [("/audit/differences", self.get_differences)]
        files = [web.get(f"/audit/{name}", _file(name, media)) for name, media in _FILES.items()]
        return [*(web.get(path, guard(self._told(page))) for path, page in pages), *files]

    def _told(self, endpoint: Endpoint) -> Endpoint:
        """What goes wrong, as a page."""

        async def told(request: web.Request) -> web.StreamResponse:
            try:
                return await endpoint(request)
            except ProblemError as problem:
                return self._page("wrong.html", status=problem.kind.status, problem=problem)

        return told

    async def get_ledgers(self, request: web.Request) -> web.Response:
        """Which ledgers there are, and how far they are witnessed."""
        del request
        shown = list[dict[str, Any]]()
        for origin in reversed(list(await self._explore.ledgers())):
            try:
                cosigned, checkpoint = await self._explore.witnessed(origin), await self._explore.checkpoint(origin)
            except ProblemError as problem:
                shown.append({"origin": origin, "log": _log(origin), "problem": problem.detail})
                continue
            shown.append({"origin": origin, "log": _log(origin), "size": checkpoint.size, "cosigned": cosigned})
        return self._page("ledgers.html", ledgers=shown)

    async def get_ledger(self, request: web.Request) -> web.Response:
        """Entries, the newest first."""
        origin = await self._origin(request)
        given = _given(request)
        wanted, before, wrong = await self._wanted(given), _index(given.get("before")), ""
        cosigned, checkpoint = await self._explore.witnessed(origin), await self._explore.checkpoint(origin)
        try:
            page = await self._explore.page(origin, wanted, before=before, count=_COUNT)
        except ProblemError as problem:  # the browser still reads it, and names what it finds
            page, wrong = Page(checkpoint=checkpoint, found=(), looked_at=0, before=None), problem.detail
        older = urlencode({**given, "before": str(page.before)}) if page.before else ""
        return self._page(
            "ledger.html", origin=origin, owner=origin.rpartition("/")[0], log=_log(origin), page=page, given=given, wrong=wrong,
            kinds=sorted(KINDS), keys=await self._explore.keys(origin), witnesses=await self._explore.witnesses(),
            cosigned=cosigned, older=older, csv_query=urlencode(given), root=b64encode(page.checkpoint.root).decode(),
        )  # fmt: skip

    async def get_csv(self, request: web.Request) -> web.Response:
        """What fits the filter, of the newest 20,000 entries or those before one, as a table for a spreadsheet."""
        origin, given = await self._origin(request), _given(request)
        before = _index(given.get("before"))
        page = await self._explore.page(origin, await self._wanted(given), before=before, count=_CSV_MAX)
        cosigned = await self._explore.witnessed(origin)
        headers = {**HEADERS, "Content-Disposition": 'attachment; filename="entries.csv"'}
        return web.Response(text=_csv(page, cosigned), content_type="text/csv", charset="utf-8", headers=headers)

    async def get_entry(self, request: web.Request) -> web.Response:
        """An entry in words, its inclusion path, and what the other side says."""
        origin = await self._origin(request)
        index = _index(request.match_info["index"])
        proven = await self._explore.entry(origin, -1 if index is None else index)
        entry, cosigned = proven.logged.entry, await self._explore.witnessed(origin)
        beside = await self._beside(entry) if self._beside and entry else []
        return self._page(
            "entry.html", origin=origin, owner=origin.rpartition("/")[0], log=_log(origin), proven=proven,
            members=parse_json(proven.logged.data, bytes_max=ENTRY_BYTES_MAX) if entry else {},
            text=proven.logged.data.decode("utf-8", "replace"),
            path=[b64encode(each).decode() for each in proven.path], root=b64encode(proven.checkpoint.root).decode(),
            steps=_steps(proven.logged.index, proven.checkpoint.size, len(proven.path)),
            beside=[(each, parse_entry(each.data), parse_json(each.data, bytes_max=ENTRY_BYTES_MAX)) for each in beside], keys=await self._explore.keys(origin),
            cosigned=cosigned, witnesses=await self._explore.witnesses(), compared=self._beside is not None,
        )  # fmt: skip

    async def get_figures(self, request: web.Request) -> web.Response:
        """Counts over the newest entries, or those before one, as pictures and tables."""
        origin = await self._origin(request)
        found = await self._explore.figures(origin, _index(request.query.get("before")) or None)
        tables = [
            ("Kinds of entries", "kind", found.kinds.most_common()),
            ("Other members", "member", [(name or "", n) for name, n in found.members.most_common(20)]),
            ("Days", "day", sorted(found.days.items(), reverse=True)[:31]),
        ]
        return self._page("figures.html", origin=origin, log=_log(origin), found=found, tables=tables)

    async def get_tile(self, request: web.Request) -> web.Response:
        """A tile's bytes, for the browser."""
        data = await self._explore.tile(await self._origin(request), f"tile/{request.match_info['tile']}")
        return web.Response(body=data, content_type="application/octet-stream", headers=HEADERS)

    async def get_thread(self, request: web.Request) -> web.Response:
        """What the ledger says of a thread: who sent, took and read its messages."""
        assert self._inside is not None  # the route is there then alone
        given, entries = request.query.get("thread", "").strip(), list[dict[str, Any]]()
        wrong = ""
        if given:
            try:
                entries = await self._inside.trail(uuid7(given))
            except ProblemError as problem:
                wrong = (
                    "Not the id of a thread." if problem.code == "entry.invalid" else "This node has no such thread."
                )
        for each in entries:
            each["log"] = _log(each["origin"])
        return self._page("thread.html", thread=given, entries=entries, wrong=wrong)

    async def get_gaps(self, request: web.Request) -> web.Response:
        """What others' ledgers left out towards us, say twice, or otherwise do not bear out."""
        del request
        assert self._inside is not None  # the route is there then alone
        alarms = [(origin, code, CODES[code]) for origin, code in sorted(self._inside.alarms().items())]
        return self._page("gaps.html", gaps=await self._inside.gaps(), twice=await self._inside.twice(), alarms=alarms)

    async def get_differences(self, request: web.Request) -> web.Response:
        """Where this ledger and the other member's do not bear each other out, as far as they have been read."""
        del request
        (origin,) = await self._explore.ledgers()
        return self._page(
            "differences.html", compared=self._compared, log=_log(origin), owner=origin.rpartition("/")[0],
            most=_DIFFERENCES_MAX, says=DIFFERENCES,
        )  # fmt: skip

    def _page(self, name: str, *, status: int = 200, **given: Any) -> web.Response:
        return page(
            name, status=status, inside=self._inside is not None, differences=self._compared is not None,
            trusted=self._trusted, vouched=self._vouched, **given,
        )  # fmt: skip

    async def _origin(self, request: web.Request) -> str:
        for origin in await self._explore.ledgers():
            if _log(origin) == request.match_info["log"]:
                return origin
        raise ProblemError("http.not_found", "no such ledger here")

    async def _wanted(self, given: dict[str, str]) -> Wanted:
        ids: frozenset[UUID] | None = None
        if (thread := given.get("thread", "")) and self._inside:
            try:
                ids = frozenset(UUID(each["message"]) for each in await self._inside.trail(uuid7(thread)))
            except ProblemError:
                ids = frozenset()  # no such thread: nothing fits
        return Wanted(
            kind=given.get("kind", ""), member=given.get("member", "").strip(), code=given.get("code", "").strip(),
            since=_day(given.get("since")), until=_day(given.get("until")), ids=ids,
        )  # fmt: skip


def page(name: str, *, status: int = 200, **given: Any) -> web.Response:
    """A page of the console under its policy."""
    text = _templates.get_template(name).render(**given)
    return web.Response(text=text, status=status, content_type="text/html", charset="utf-8", headers=HEADERS)


def _file(name: str, media: str) -> Endpoint:
    data = resources.files(__package__).joinpath("templates", name).read_bytes()

    async def endpoint(request: web.Request) -> web.Response:
        del request
        return web.Response(body=data, content_type=media, charset="utf-8", headers=HEADERS)

    return endpoint


def _log(origin: str) -> str:
    return sha256(origin.encode()).hexdigest()


def _given(request: web.Request) -> dict[str, str]:
    """The filter: every parameter once, of bounded length; what is not known is left out."""
    known = ("kind", "member", "code", "since", "until", "thread", "before")
    found = {name: request.query[name][:128] for name in known if request.query.get(name)}
    return {name: value.encode("utf-8", "replace").decode() for name, value in found.items()}


def _index(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 16 else None


def _day(text: str | None) -> date | None:
    """A day in UTC; one that is none is not filtered by."""
    try:
        return date.fromisoformat(text) if text else None
    except ValueError:
        return None


def _csv(found: Page, cosigned: Cosigned) -> str:
    """RFC 4180, every cell quoted; no cell begins as a formula does."""
    out = io.StringIO()
    writer = csv.writer(out, quoting=csv.QUOTE_ALL)
    writer.writerow(("index", "at", "kind", "from", "to", "code", "id", "pair_seq", "grade"))
    for each in found.found:
        writer.writerow((*_row(each), cosigned.grade(each.index)))
    return out.getvalue()


def _row(logged: Logged) -> Sequence[str]:
    entry = logged.entry
    if entry is None:
        return [str(logged.index), *([""] * 7)]
    cells = (
        logged.index, format_time(entry.at), entry.kind, entry.sender, entry.recipient, entry.code, entry.id, entry.pair_seq,
    )  # fmt: skip
    texts = ("" if cell is None else str(cell) for cell in cells)
    return [f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text for text in texts]


def _steps(index: int, size: int, length: int) -> list[str]:
    """On which side each hash of the path stands, leaf to root (RFC 9162 section 2.1.3.2)."""
    sides, fn, sn = [], index, size - 1
    for _ in range(length):
        if fn & 1 or fn == sn:
            sides.append("left")
            while fn and not fn & 1:
                fn, sn = fn >> 1, sn >> 1
        else:
            sides.append("right")
        fn, sn = fn >> 1, sn >> 1
    return sides
