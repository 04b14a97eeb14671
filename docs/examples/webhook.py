"""A member's own system that is told of what arrives: checks who tells it, handles each message once, confirms.

usage: webhook.py PORT KEY   (the whpk_... that `tracewire keys rotate NODE webhook` prints)

The body says which message there is; read it with `GET /v1/traces/{thread}`, for the purpose that you read it for.
"""

import json
import re
import sys
import threading
import time
from base64 import b64decode
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

LATE_S, BYTES_MAX = 300, 4_096
HANDLED: set[str] = set()  # a real system keeps the names in its database, in the transaction that handles the message
ONE_AT_A_TIME = threading.Lock()


def genuine(headers: Mapping[str, str], body: bytes, key: Ed25519PublicKey) -> bool:
    """Whether a signature of the key stands over exactly this, made within five minutes (Standard Webhooks, v1a)."""
    name, stamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not re.fullmatch("[0-9]{1,12}", stamp) or abs(time.time() - int(stamp)) > LATE_S:
        return False
    for signature in headers.get("webhook-signature", "").split():
        version, _, value = signature.partition(",")
        try:
            key.verify(b64decode(value), f"{name}.{stamp}.".encode() + body)
        except (InvalidSignature, ValueError):
            continue
        return version == "v1a"
    return False


def handle(name: str, body: bytes) -> None:
    """What is done with a message, once: it may be told again, after a crash or where the answer got lost."""
    with ONE_AT_A_TIME:
        if name not in HANDLED:
            print(name, json.loads(body)["data"]["thread"], flush=True)
            HANDLED.add(name)


class Hook(BaseHTTPRequestHandler):
    """Takes what the node tells."""

    timeout = 10
    key: Ed25519PublicKey

    def do_POST(self) -> None:
        """2xx confirms: the node says in its ledger that we have the message. Anything else, and it is told again."""
        length = self.headers.get("Content-Length", "")
        if not re.fullmatch("[0-9]{1,6}", length) or int(length) > BYTES_MAX:
            self.close_connection = True
            self.answer(413)
            return
        body = self.rfile.read(int(length))
        if not genuine(self.headers, body, self.key):
            self.answer(401)
            return
        handle(self.headers["webhook-id"], body)
        self.answer(204)

    def answer(self, status: int) -> None:
        """The status alone."""
        self.send_response(status)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """No access log."""


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    Hook.key = Ed25519PublicKey.from_public_bytes(b64decode(sys.argv[2].removeprefix("whpk_")))
    with ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Hook) as server:
        server.serve_forever()
