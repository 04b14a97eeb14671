"""Probe: walk the way to a peer step by step, and name the first one that fails; answer the probes of others."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

from gateway.services.doctor import CLOCK_FIX, Step, broken, span
from gateway.services.policy import permit
from gateway.services.submit import current
from protocols.directory import SUITE, Directory, Record
from protocols.exchange.message import parse_jws
from protocols.exchange.probe import PROBE_TYP, PROTOCOL, ProbeAnswer, parse_probe, sign_probe
from protocols.limits import REQUEST_AGE_MAX_S, REQUEST_AHEAD_MAX_S
from protocols.messages import TYPES
from protocols.ports.crypto import Signer, Verifier
from protocols.ports.directory import DirectorySource
from protocols.ports.store import LedgerStore, Unavailable
from protocols.ports.transport import Transport
from protocols.ports.world import Clock
from protocols.problems import CODES, ProblemError
from protocols.strict import format_time, parse_time

PROBES_MAX = 8  # of this node at once
STEP_S = 5.0
_STEPS: Mapping[str, tuple[str, str]] = {
    "dns": ("A peer is found by the name of its endpoint.", "Ask the resolver: getent hosts {host}"),
    "tcp": (
        "Nothing can be sent where nobody takes a connection.",
        "Try it from here: nc -vz {host} {port}. Then look at firewalls on both sides; is the peer's node running?",
    ),
    "tls": (
        "Only the key that the directory lists shows that it is the peer.",
        "Have the peer run `tracewire doctor`; meanwhile see what is shown: openssl s_client -connect {host}:{port}",
    ),
    "http": (
        "Something takes connections there, and it is not a node that answers probes.",
        "Have the peer check its exchange_url, its proxy and the version of its node.",
    ),
    "clock": ("Requests over 300 s old or 60 s early are refused (`httpsig.time`).", CLOCK_FIX),
    "trust": ("Each must find the other, active and with its keys, in its directory.", ""),
    "rights": ("The directory's matrix says which roles may send what to whom.", ""),
    "schema": ("Both must speak the same version of the protocol.", "Bring the older of the two nodes up to date."),
    "backend": (
        "The node is reached and trusted, and cannot work.",
        "Have the peer run `tracewire doctor` and mend what it names.",
    ),
}
_SAID = {  # the peer's problem code -> the step that it speaks of; any other is of http
    "httpsig.time": "clock",
    **dict.fromkeys(("httpsig.key", "httpsig.signature", "peer.suspended", "dir.stale", "dir.expired"), "trust"),
}
_OURS = ("peer.unreachable", "peer.identity", "peer.answer")  # what our own side says of an answer, or of none


@dataclass(frozen=True, slots=True, kw_only=True)
class Probed:
    """The steps to a peer in order, those after the first that failed not tried; how far its clock is ahead of ours."""

    peer: str
    steps: tuple[Step, ...]
    ahead: timedelta | None

    @property
    def failed(self) -> Step | None:
        """The step that fails."""
        return next((step for step in self.steps if step.state == "wrong"), None)


class Probe:
    """Both sides of a probe; nothing is stored on either."""

    def __init__(
        self,
        *,
        member: str,
        directory: DirectorySource,
        transport: Transport,
        ledger: LedgerStore,
        signer: Signer,
        verifier: Verifier,
        wrong: Callable[[], Mapping[str, str]],
        clock: Clock,
    ) -> None:
        self._member, self._directory, self._transport, self._ledger = member, directory, transport, ledger
        self._signer, self._verifier, self._wrong, self._clock = signer, verifier, wrong, clock
        self._running = 0

    async def answer(self, caller: str) -> bytes:
        """What we say of ourselves to a member whose signature holds, signed; whether the database answers, too."""
        wrong = set(self._wrong().values())
        try:
            await self._ledger.heads()
        except Unavailable:
            wrong.add("store.busy")
        answer = ProbeAnswer(
            sender=self._member, recipient=caller, at=format_time(self._clock.now()),
            dir=current(self._directory).ref.version, types=list(TYPES), wrong=sorted(wrong),
        )  # fmt: skip
        return sign_probe(answer, self._signer)

    async def ask(self, peer: str) -> Probed:
        """Every step to a peer, each within 5 s; `member.unknown`, or `store.busy` above 8 at once."""
        directory = current(self._directory)
        if peer not in directory.records:
            raise ProblemError("member.unknown", "no such member in the directory")
        if self._running >= PROBES_MAX:
            raise ProblemError("store.busy", "too many probes at once")
        self._running += 1
        walk = _Walk(
            member=self._member, record=directory.records[peer], directory=directory, transport=self._transport,
            verifier=self._verifier, clock=self._clock,
        )  # fmt: skip
        try:
            return Probed(peer=peer, steps=tuple([step async for step in walk.steps()]), ahead=walk.ahead)
        finally:
            self._running -= 1


def probed_json(probed: Probed) -> dict[str, Any]:
    """What the agency interface answers."""
    return {"peer": probed.peer, "ok": probed.failed is None, "steps": [step.shown() for step in probed.steps]}


class _Walk:
    """One probe of one peer: each step builds on what those before it found."""

    def __init__(
        self,
        *,
        member: str,
        record: Record,
        directory: Directory,
        transport: Transport,
        verifier: Verifier,
        clock: Clock,
    ) -> None:
        self._member, self._record, self._directory = member, record, directory
        self._transport, self._verifier, self._clock = transport, verifier, clock
        self.ahead: timedelta | None = None
        self._refusal: ProblemError | None = None
        self._data = b""
        self._answer: ProbeAnswer | None = None

    async def steps(self) -> AsyncIterator[Step]:
        tries: dict[str, Callable[[], Awaitable[str]]] = {
            "dns": self._dns, "tcp": self._tcp, "tls": self._tls, "http": self._http, "clock": self._clocks,
            "trust": self._trust, "rights": self._rights, "schema": self._schema, "backend": self._backend,
        }  # fmt: skip
        failed = False
        for name, attempt in tries.items():
            if failed:
                yield Step(step=name, state="not tried")
                continue
            try:
                async with asyncio.timeout(STEP_S):
                    step = Step(step=name, state="ok", what=await attempt())
            except ProblemError as problem:
                failed, step = True, self._failed(name, problem)
            except TimeoutError:
                late = ProblemError("peer.unreachable", f"no answer within {STEP_S:.0f} s")
                failed, step = True, self._failed(name, late)
            yield step

    def _failed(self, name: str, problem: ProblemError) -> Step:
        why, fix = _STEPS[name]
        url = urlsplit(self._record.endpoint.url if self._record.endpoint else "")
        port = url.port or (443 if url.scheme == "https" else 80)
        return broken(name, problem, why, fix.format(host=url.hostname, port=port) if url.hostname else "")

    def _refused(self, name: str) -> None:
        """The problem with which the peer refused the signed request, at the step that it speaks of."""
        if self._refusal is None or _SAID.get(self._refusal.code, "http") != name:
            return
        if self._refusal.code in _OURS:
            raise self._refusal
        said = f"the peer answers `{self._refusal.code}`: {self._refusal.kind.title.lower()}"
        raise ProblemError(self._refusal.code, said)

    async def _dns(self) -> str:
        await self._transport.reach(self._record, "dns")
        return "the name has an address"

    async def _tcp(self) -> str:
        await self._transport.reach(self._record, "tcp")
        return "a connection is taken"

    async def _tls(self) -> str:
        await self._transport.reach(self._record, "tls")
        secure = self._record.endpoint is not None and self._record.endpoint.url.startswith("https:")
        return "the listed key is shown" if secure else "plain HTTP, as this test network allows"

    async def _http(self) -> str:
        said = await self._transport.time(self._record)
        self.ahead = said - self._clock.now().replace(microsecond=0)
        try:
            self._data = await self._transport.probe(self._record)
        except ProblemError as problem:
            self._refusal = problem
            self._refused("http")
        return "a node answers"

    async def _clocks(self) -> str:
        assert self.ahead is not None  # http went before
        if abs(self.ahead.total_seconds()) > REQUEST_AHEAD_MAX_S:
            side = "ahead of" if self.ahead > timedelta(0) else "behind"
            what = f"the peer's clock is {span(self.ahead)} {side} ours; one of the two is wrong"
            raise ProblemError("httpsig.time", what)
        self._refused("clock")
        return f"{span(self.ahead)} apart"

    async def _trust(self) -> str:
        peer, now = self._record.member, self._clock.now()
        if not self._directory.active(peer):
            raise ProblemError("peer.suspended", "our directory lists the peer as not active")
        self._refused("trust")
        try:
            signed = parse_jws(self._data, PROBE_TYP)
        except ProblemError as problem:
            raise ProblemError("peer.answer", "the answer is not a signed one") from problem
        key = self._directory.request_keys.get(signed.kid)
        if key is None or key.member != peer or not key.valid(now):
            raise ProblemError("httpsig.key", "the answer is signed with a key that our directory does not list for it")
        if not self._verifier.verify("Ed25519", key.key.public, signed.signed, signed.signature):
            raise ProblemError("peer.identity", "the answer's signature does not hold")
        try:
            found = parse_probe(signed.payload)
        except ProblemError:  # of another version: the step `schema` says so
            return ""
        if (found.sender, found.recipient) != (peer, self._member) or abs(
            parse_time(found.at) - now
        ).total_seconds() > REQUEST_AGE_MAX_S:
            raise ProblemError("peer.identity", "the answer is an old one, or was made for somebody else")
        self._answer = found
        return f"it holds version {found.dir} of the directory, we {self._directory.ref.version}"

    async def _rights(self) -> str:
        us, peer, may = self._member, self._record.member, []
        for sender, recipient, said in ((us, peer, "we may ask it"), (peer, us, "it may ask us")):
            with suppress(ProblemError):
                permit(self._directory, type_="trace.request", sender=sender, recipient=recipient)
                may.append(said)
        if not may:
            raise ProblemError("msg.not_permitted", "no role of the two lets either ask the other")
        return ", ".join(may)

    async def _schema(self) -> str:
        found = self._answer
        if found is None or (found.v, found.suite) != (PROTOCOL, SUITE) or not set(TYPES) & set(found.types):
            raise ProblemError("schema.invalid", "the peer speaks another version of the protocol")
        return f"protocol {found.v}, suite {found.suite}"

    async def _backend(self) -> str:
        assert self._answer is not None  # schema went before
        if self._answer.wrong:
            codes = [code for code in self._answer.wrong if code in CODES]
            raise ProblemError("peer.answer", f"the peer's node says that it is not ready: {', '.join(codes)}")
        return "ready"
