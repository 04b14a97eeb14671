"""The backend over HTTP: a webhook after Standard Webhooks, signed with Ed25519 (`v1a`)."""

from base64 import b64encode
from collections.abc import Callable, Sequence
from datetime import datetime

import aiohttp

from protocols.ports.backend import NotTaken
from protocols.ports.crypto import Signer
from protocols.ports.rows import Arrived
from protocols.strict import dump_json


class Webhook:
    """The port Backend: one POST a message. Its body says which message there is, and nothing of what that says.

    `signers` gives the keys of now: under each stands a signature, so that the system may learn a new key before the
    former is gone. A redirect is no confirmation: what is signed for one address is shown to no other.
    """

    def __init__(self, url: str, signers: Callable[[], Sequence[Signer]], *, timeout_s: float) -> None:
        self._url, self._signers, self._timeout_s = url, signers, timeout_s
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Closes every connection."""
        if self._session is not None:
            await self._session.close()

    async def take(self, arrived: Arrived, now: datetime) -> None:
        """Tells of the message; a status of 2xx confirms it."""
        about = {"thread": arrived.thread, "counterpart": arrived.sender, "message": arrived.id}
        body = dump_json({"type": "received", "data": {name: str(value) for name, value in about.items()}})
        name, stamp = f"{arrived.sender}/{arrived.id}", str(int(now.timestamp()))
        signed = f"{name}.{stamp}.".encode() + body
        signatures = [f"v1a,{b64encode(signer.sign(signed)).decode()}" for signer in self._signers()]
        headers = {
            "Content-Type": "application/json", "webhook-id": name, "webhook-timestamp": stamp,
            "webhook-signature": " ".join(signatures),
        }  # fmt: skip
        if self._session is None:
            jar, limit = aiohttp.DummyCookieJar(), aiohttp.ClientTimeout(total=self._timeout_s)
            self._session = aiohttp.ClientSession(cookie_jar=jar, timeout=limit, auto_decompress=False)
        try:
            async with self._session.post(self._url, data=body, headers=headers, allow_redirects=False) as response:
                status = response.status
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:  # a host that no name can be
            raise NotTaken(type(error).__name__, away=True) from error
        if not 200 <= status < 300:
            raise NotTaken(f"status {status}", away=status >= 500 or status == 429)
