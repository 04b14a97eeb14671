"""Blobs: attachments, sealed and stored while they stream, brought to whoever misses them, opened while they are read.

No more than a range of 4 MiB of one is in memory on any way here. Whoever POSTs a parcel and is told `msg.blob_missing`
puts the attachments there; a recipient that got the parcel from another than its sender, or fetched it, gets them there.
"""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any
from uuid import UUID

import structlog

from gateway.services.submit import current
from protocols.exchange.blobs import sealed_bytes
from protocols.exchange.message import AttachmentRef
from protocols.limits import BLOB_PIECE_BYTES, BLOB_RANGE_BYTES_MAX, BLOBS_A_MEMBER_BYTES_MAX
from protocols.ports.carried import BlobStore
from protocols.ports.crypto import Opener, Sealer
from protocols.ports.directory import DirectorySource
from protocols.ports.rows import Blob
from protocols.ports.transport import Transport
from protocols.ports.world import Clock
from protocols.problems import ProblemError

_log = structlog.get_logger()
_KEY_BYTES = 32
_JOBS_MAX = 1_024
_SEALING_MAX = 8  # uploads at once: each holds a range in memory
_NOBODY = UUID(int=0)
_HASHES_MAX = 256  # transfers whose hash goes on where it was; others begin it again from the store


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealed:
    """An attachment as it was stored: the digest and length of its ciphertext, and the key that opens it."""

    digest: bytes
    size: int
    key: bytes


@dataclass(frozen=True, slots=True)
class _Job:
    peer: str
    digest: bytes
    size: int
    put: bool


class Blobs:
    """One task a peer brings what it or we miss; one slow peer never delays another."""

    def __init__(
        self,
        *,
        member: str,
        directory: DirectorySource,
        store: BlobStore,
        transport: Transport,
        sealer: Sealer,
        opener: Opener,
        clock: Clock,
        bytes_max: int,
    ) -> None:
        """`bytes_max` is of an attachment before it is sealed."""
        self._member, self._directory, self._store, self._transport = member, directory, store, transport
        self._sealer, self._opener, self._clock, self.bytes_max = sealer, opener, clock, bytes_max
        self._hashes: OrderedDict[UUID, tuple[int, Any]] = OrderedDict()
        self._jobs: asyncio.Queue[_Job] = asyncio.Queue()  # as many as are pending
        self._sealing = 0
        self._pending: set[_Job] = set()
        self._then: dict[_Job, list[Callable[[], Awaitable[object]]]] = {}

    # ---- the member's own systems

    async def seal(self, chunks: AsyncIterator[bytes]) -> Sealed:
        """Seals and stores what streams in; `http.too_large` beyond the limit, `schema.invalid` for nothing. What breaks off leaves nothing."""
        if self._sealing >= _SEALING_MAX:
            raise ProblemError("store.busy", "other attachments are being uploaded")
        if await self._store.unnamed(self._member) > BLOBS_A_MEMBER_BYTES_MAX:
            raise ProblemError("quota.blobs", "too many attachments of ours wait for their messages")
        self._sealing += 1
        try:
            return await self._seal(chunks)
        finally:
            self._sealing -= 1

    async def _seal(self, chunks: AsyncIterator[bytes]) -> Sealed:
        key = self._sealer.random(_KEY_BYTES)
        cipher, digest = self._sealer.stream(key), sha256()
        blob = await self._store.begin(self._member, None, None, self._clock.now())
        held, plain, waiting = 0, 0, bytearray()
        try:
            async for chunk in chunks:
                plain += len(chunk)
                if plain > self.bytes_max:
                    raise ProblemError("http.too_large", f"an attachment has at most {self.bytes_max} bytes")
                waiting += cipher.update(chunk)
                if len(waiting) >= BLOB_RANGE_BYTES_MAX:
                    whole = len(waiting) // BLOB_PIECE_BYTES * BLOB_PIECE_BYTES
                    held = await self._append(blob.id, held, bytes(waiting[:whole]), digest)
                    del waiting[:whole]
            if not plain:
                raise ProblemError("schema.invalid", "an attachment has at least one byte")
            waiting += cipher.finalize()
            held = await self._append(blob.id, held, bytes(waiting), digest)
            await self._store.finish(blob.id, digest.digest(), held)
        except BaseException:
            await self._store.discard(blob.id)
            raise
        return Sealed(digest=digest.digest(), size=held, key=key)

    async def _append(self, blob: UUID, held: int, data: bytes, digest: Any) -> int:
        digest.update(data)
        if await self._store.append(blob, held, data) != held + len(data):
            raise ProblemError("store.busy", "the attachment was dropped meanwhile")
        return held + len(data)

    async def open(self, digest: bytes, key: bytes, size: int) -> AsyncIterator[bytes]:
        """The attachment as it was, piece by piece; `content.erased` where it is not here or does not open."""
        cipher = self._opener.stream(key)
        try:
            for at in range(0, size, BLOB_PIECE_BYTES):
                piece = await self._store.read(digest, at, BLOB_PIECE_BYTES)
                yield cipher.update(piece)
            yield cipher.finalize()
        except ValueError as error:
            raise ProblemError("content.erased", "the attachment does not open") from error

    async def sealed(self, digest: bytes, size: int) -> AsyncIterator[bytes]:
        """The ciphertext, range by range; `content.erased` where it is not here."""
        for at in range(0, size, BLOB_RANGE_BYTES_MAX):
            data = await self._store.read(digest, at, BLOB_RANGE_BYTES_MAX)
            if not data:
                raise ProblemError("content.erased", "the attachment is not here any more")
            yield data

    # ---- the exchange listener

    async def missing(self, refs: Sequence[AttachmentRef]) -> list[AttachmentRef]:
        """Those that are not here whole, as long as the message says."""
        here = await self._store.whole([ref.sha256 for ref in refs])
        return [ref for ref in refs if here.get(ref.sha256) != ref.size]

    async def held(self, owner: str, digest: bytes) -> Blob:
        """How much of it is here; nothing where nobody began."""
        if await self._store.whole([digest]):
            return Blob(id=_NOBODY, held=0, size=None, whole=True)
        return await self._store.find(owner, digest) or Blob(id=_NOBODY, held=0, size=None, whole=False)

    async def put(self, owner: str, digest: bytes, offset: int, size: int, data: bytes) -> tuple[int, bool]:
        """Takes the next range; the bytes held, and whether it became whole by this. What is not next changes nothing.

        `http.too_large`, `quota.blobs`, `blob.range` for another size than at first, and `blob.digest` where all of it is
        another than announced.
        """
        if size > sealed_bytes(self.bytes_max):
            raise ProblemError("http.too_large", f"an attachment has at most {self.bytes_max} bytes")
        if await self._store.whole([digest]):
            return size, False
        blob = await self._store.find(owner, digest)
        if blob is None:
            if offset:
                return 0, False
            if await self._store.unnamed(owner) + size > BLOBS_A_MEMBER_BYTES_MAX:
                raise ProblemError("quota.blobs", "too many attachments of this member wait for their messages")
            blob = await self._store.begin(owner, digest, size, self._clock.now())
        if blob.size != size or offset + len(data) > size:
            raise ProblemError("blob.range", "it was announced with another size")
        if blob.held != offset:
            return blob.held, False
        running = await self._hash(blob)
        running.update(data)
        whole = offset + len(data) == size
        if whole and running.digest() != digest:
            await self._store.discard(blob.id)
            raise ProblemError("blob.digest", "the bytes give another digest")
        held = await self._store.append(blob.id, offset, data, whole=whole)
        if held == offset + len(data) and not whole:  # else another request was first
            self._hashes[blob.id] = held, running
        return held, whole and held == size

    async def _hash(self, blob: Blob) -> Any:
        """The running digest of what is held; made again from the store after a restart."""
        at, running = self._hashes.pop(blob.id, (0, sha256()))
        if at > blob.held:
            at, running = 0, sha256()
        while at < blob.held:
            data = await self._store.held(blob.id, at, BLOB_RANGE_BYTES_MAX)
            if not data:
                break
            running.update(data)
            at += len(data)
        while len(self._hashes) >= _HASHES_MAX:
            self._hashes.popitem(last=False)
        return running

    async def range(self, digest: bytes, offset: int, length: int) -> bytes:
        """A range for a member that knows the digest: it stands only inside sealed messages, and this is ciphertext."""
        return await self._store.read(digest, offset, length)

    # ---- between nodes

    def bring(self, peer: str, refs: Sequence[AttachmentRef], then: Callable[[], Awaitable[object]]) -> None:
        """Puts attachments at a peer, in the background; `then` is called when each is there."""
        self._want([_Job(peer, ref.sha256, ref.size, put=True) for ref in refs], then)

    def fetch(self, peer: str, refs: Sequence[AttachmentRef]) -> None:
        """Gets attachments from a peer, in the background: their parcel comes again."""
        self._want([_Job(peer, ref.sha256, ref.size, put=False) for ref in refs], None)

    def _want(self, jobs: Sequence[_Job], then: Callable[[], Awaitable[object]] | None) -> None:
        for job in jobs:
            if job not in self._pending:
                if len(self._pending) >= _JOBS_MAX:  # the parcel is tried again, and so is this
                    continue
                self._pending.add(job)
                self._jobs.put_nowait(job)
            if then is not None:
                self._then.setdefault(job, []).append(then)

    async def run(self) -> None:
        """Brings until cancelled."""
        queues: dict[str, list[_Job]] = {}

        async def work(peer: str) -> None:
            while queues[peer]:
                job = queues[peer].pop(0)
                moved = await self._do(job)
                self._pending.discard(job)
                waiting = self._then.pop(job, ())
                for then in waiting if moved else ():  # what was there all the time helps no parcel
                    await self._tell(then)
            del queues[peer]

        async with asyncio.TaskGroup() as group:
            while True:
                job = await self._jobs.get()
                if job.peer in queues:
                    queues[job.peer].append(job)
                else:
                    queues[job.peer] = [job]
                    group.create_task(work(job.peer))

    async def _tell(self, then: Callable[[], Awaitable[object]]) -> None:
        try:
            await then()
        except Exception:  # the parcel is tried again at its own time
            _log.exception("attachment_not_told")

    async def _do(self, job: _Job) -> bool:
        """Whether anything was brought."""
        try:
            return await (self._put(job) if job.put else self._get(job))
        except ProblemError as problem:
            _log.warning("attachment_waits", peer=job.peer, code=problem.code)
        except Exception:  # one attachment's failure is its own; its parcel is tried again
            _log.exception("attachment_failed", peer=job.peer)
        return False

    async def _put(self, job: _Job) -> bool:
        record = current(self._directory).records[job.peer]
        at = begun = await self._transport.blob_held(record, job.digest)
        while 0 <= at < job.size:
            data = await self._store.read(job.digest, at, BLOB_RANGE_BYTES_MAX)
            if not data:
                raise ProblemError("content.erased", "the attachment is not here any more")
            await self._transport.put_blob(record, job.digest, offset=at, size=job.size, data=data)
            at += len(data)
        return at > begun

    async def _get(self, job: _Job) -> bool:
        record = current(self._directory).records[job.peer]
        blob = await self._store.find(job.peer, job.digest)
        at = blob.held if blob is not None else 0
        while at < job.size:
            length = min(BLOB_RANGE_BYTES_MAX, job.size - at)
            data = await self._transport.get_blob(record, job.digest, offset=at, length=length)
            if len(data) != length:
                raise ProblemError("msg.blob_missing", "the peer does not hold it either")
            at, _ = await self.put(job.peer, job.digest, at, job.size, data)
        return True
