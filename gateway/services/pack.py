"""Pack: messages of ours as the lines of a POST, whoever carries it; what can be sent at all, and under which key."""

from collections.abc import Collection, Sequence
from datetime import datetime

import structlog

from gateway.services.commit import Committer
from gateway.services.content import Content, open_content
from gateway.services.link import Key, Linking
from gateway.services.prove import Prove
from gateway.services.settle import Settle
from gateway.services.submit import Submit
from protocols.directory import Directory
from protocols.exchange.lines import Hello, Parcel, Post
from protocols.ledger.checkpoint import Checkpoint
from protocols.ledger.entry import PeerRef
from protocols.ledger.merkle import leaf_hash
from protocols.ledger.proof import Place
from protocols.ports.crypto import Vault
from protocols.ports.rows import Claimed
from protocols.ports.store import ExchangeStore, ThreadStore
from protocols.problems import ProblemError

_log = structlog.get_logger()


class Pack:
    """Builds parcels from what was claimed or is offered."""

    def __init__(
        self,
        *,
        member: str,
        committer: Committer,
        store: ExchangeStore,
        threads: ThreadStore,
        linking: Linking,
        prove: Prove,
        settle: Settle,
        submit: Submit,
        vault: Vault,
    ) -> None:
        self._member, self._committer, self._store, self._threads = member, committer, store, threads
        self._linking, self._prove, self._settle, self._submit, self._vault = linking, prove, settle, submit, vault

    async def ready(
        self, messages: Sequence[Claimed], directory: Directory, now: datetime
    ) -> tuple[list[Claimed], list[Claimed], list[Claimed]]:
        """What may be sent as it is; what was sealed again, to a newer key; and where that was not possible now.

        A message whose signing key was revoked is given up.
        """
        ready: list[Claimed] = []
        again: list[Claimed] = []
        failed: list[Claimed] = []
        for each in messages:
            if _revoked(each, directory):
                await self._settle.give_up(each, "key.revoked", directory)
            elif each.expires > now and _seal_retired(each, directory, now):
                (again if await self._reseal(each) else failed).append(each)
            else:
                ready.append(each)
        return ready, again, failed

    async def _reseal(self, claimed: Claimed) -> bool:
        """Seals the same JWS to the recipient's newer key; whether that was possible."""
        try:
            content = await self.content(claimed)
            before = await self._store.sealed([claimed.id])
            first = min(before, key=lambda row: (row.origin, row.index), default=None)
            leaf = leaf_hash(await self._prove.entry(first.origin, first.index) if first else claimed.entry)
            origin, index = (first.origin, first.index) if first else (claimed.origin, claimed.index)
            await self._committer.commit(
                self._submit.reseal(claimed, content, PeerRef(origin=origin, index=index, leaf=leaf))
            )
        except ProblemError as problem:
            _log.warning("reseal_failed", id=str(claimed.id), code=problem.code)
            return False
        return True

    async def content(self, claimed: Claimed) -> Content:
        """What a message of ours says; `content.erased` where it is gone."""
        return open_content(self._vault, await self._threads.content(self._member, claimed.id))

    async def post(
        self,
        peer: str,
        messages: Sequence[Claimed],
        directory: Directory,
        *,
        speakers: Collection[str] = (),
        pins: dict[str, Checkpoint] | None = None,
    ) -> Post:
        """The lines for a member, each message proven under our newest checkpoint (of its own ledger).

        `speakers` are the members whose ledgers the answer may name besides the peer's: a hub that carries it. `pins` are
        checkpoints to prove under where they cover the messages, so that many POSTs need few; it learns the others.
        """
        pins = {} if pins is None else pins
        notes: dict[Key, bytes] = {}
        places: dict[Key, Place] = {}
        for origin in {
            self._committer.origin,
            *(each.origin for each in messages),
        }:  # without parcels links alone are sent
            newest = pins.get(origin)
            if newest is None or any(each.origin == origin and each.index >= newest.size for each in messages):
                newest = pins[origin] = await self._prove.newest(origin)
            notes[origin, newest.size] = newest.note
            entries = {each.index: each.entry for each in messages if each.origin == origin}
            places |= {(origin, index): place for index, place in (await self._prove.places(newest, entries)).items()}
        items = tuple(Parcel(place=places[each.origin, each.index], envelope=each.envelope) for each in messages)
        hello = await self.hello(peer, notes, directory, speakers=speakers)
        return Post(hello=hello, checkpoints=notes, items=items)

    async def hello(
        self, peer: str, notes: Collection[Key], directory: Directory, *, speakers: Collection[str] = ()
    ) -> Hello:
        """Our first line to a member: what we hold of its ledgers, and links of ours along the sizes it named last."""
        named = {origin: await self._store.named(peer, origin) for origin, _ in notes}
        return Hello(
            dir_version=directory.ref.version,
            held=await self._linking.held(directory.ledgers_of(peer, *speakers)),
            links=await self._prove.links_of(notes, named),
        )


def _seal_retired(claimed: Claimed, directory: Directory, now: datetime) -> bool:
    """Whether the key it was sealed to is listed as ended and the recipient has a newer one."""
    key = directory.seal_keys.get(claimed.seal_kid)
    retired = key is None or not key.valid(now)
    return retired and any(
        each.member == claimed.recipient and each.valid(now) for each in directory.seal_keys.values()
    )


def _revoked(claimed: Claimed, directory: Directory) -> bool:
    key = directory.message_keys.get(claimed.kid)
    return key is not None and key.revoked is not None
