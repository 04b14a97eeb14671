"""Attachments in `/v1`: uploaded before the message that names them, read piece by piece."""

from collections.abc import AsyncIterator
from urllib.parse import quote

from aiohttp import web

from gateway.http.dialogue import thread_of
from gateway.http.documents import Uploaded
from gateway.http.openapi import OCTETS, Asked, Operation
from gateway.http.serve import PRIVATE, json_response, stream_body
from gateway.services.blobs import Blobs
from gateway.services.policy import permit_client
from gateway.services.read import Read
from protocols.exchange.blobs import plain_bytes
from protocols.ledger.entry import uuid7
from protocols.problems import ProblemError
from protocols.strict import b64u, unb64u

_PATH = "/v1/traces/{thread}/messages/{message}/attachments/{attachment}"


class Attachments:
    """Two operations: put one there, read one."""

    def __init__(self, blobs: Blobs, read: Read) -> None:
        self._blobs, self._read = blobs, read

    def operations(self) -> tuple[Operation, ...]:
        """Both."""
        return (
            Operation(
                method="POST", path="/v1/attachments", scope="trace:write", call=self.post_attachment, media=(OCTETS,),
                reads=False, answer=Uploaded, status=201, problems=("schema.invalid", "store.full"),
            ),
            Operation(
                method="GET", path=_PATH, scope="parts:read", call=self.get_attachment, headers=("Range",), answers=OCTETS,
                problems=(
                    "thread.not_found", "attachment.not_found", "handling.forbidden", "content.erased", "blob.range", "auth.purpose",
                ),
            ),
        )  # fmt: skip

    async def post_attachment(self, request: web.Request, asked: Asked) -> web.Response:
        """Upload a photograph or document.

        It is sealed while it streams. Repeat the answer under `attachments` of a message within seven days, and point to
        it from the body by `sha256`; what no message names then is dropped.
        """
        del asked
        sealed = await self._blobs.seal(stream_body(request, bytes_max=self._blobs.bytes_max, media_type=OCTETS))
        return json_response({"sha256": b64u(sealed.digest), "key": b64u(sealed.key), "size": sealed.size}, status=201)

    async def get_attachment(self, request: web.Request, asked: Asked) -> web.StreamResponse:
        """Read an attachment of a message as it was before it was sealed.

        It needs the scope `trace:read` too. Each reading is an entry in the ledger. A broken transfer goes on with `Range: bytes=N-`.
        """
        try:
            message, digest = uuid7(request.match_info["message"]), unb64u(request.match_info["attachment"], length=32)
        except ProblemError:
            raise ProblemError("attachment.not_found", "not the digest of an attachment") from None
        permit_client(asked.caller, "trace:read")
        start = _start(request)
        ref, key = await self._read.attachment(thread_of(request), message, digest, asked.caller)
        size = plain_bytes(ref.size)
        if start and start >= size:
            raise ProblemError("blob.range", f"it has {size} bytes")
        headers = {
            "Content-Type": OCTETS, "Content-Length": str(size - start), "X-Content-Type-Options": "nosniff",
            "Content-Disposition": f"attachment; filename*=UTF-8''{quote(ref.name, safe='')}", **PRIVATE,
        }  # fmt: skip
        if start:
            headers["Content-Range"] = f"bytes {start}-{size - 1}/{size}"
        response = web.StreamResponse(status=206 if start else 200, headers=headers)
        pieces = _from(self._blobs.open(ref.sha256, key, ref.size), start)
        first = await anext(pieces, b"")  # what does not open is a problem, not a broken answer
        await response.prepare(request)
        await response.write(first)
        async for piece in pieces:
            await response.write(piece)
        return response


def _start(request: web.Request) -> int:
    """The first byte that is wanted."""
    text = request.headers.get("Range", "bytes=0-")
    number = text.removeprefix("bytes=").removesuffix("-")
    if not (
        text.startswith("bytes=") and text.endswith("-") and number.isascii() and number.isdigit() and len(number) < 13
    ):
        raise ProblemError("blob.range", "ask for bytes=N-")
    return int(number)


async def _from(pieces: AsyncIterator[bytes], start: int) -> AsyncIterator[bytes]:
    async for piece in pieces:
        if start < len(piece):
            yield piece[start:]
        start = max(0, start - len(piece))
