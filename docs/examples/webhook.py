"""A member's own system that is told of what arrives: checks who tells it, notes each message once, confirms.

usage: webhook.py PORT KEY   (the whpk_... that `tracewire keys rotate NODE webhook` prints)

The body says which message there is; read it with `GET /v1/traces/{thread}`, for the purpose that you read it for.
"""

import json
import sys
import time
from base64 import b64decode
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, HTTPServer

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

NOTED: set[str] = set()  # a real system keeps the names in its database, in the transaction that handles the message


def genuine(headers: Mapping[str, str], body: bytes, key: Ed25519PublicKey) -> bool:
    """Whether a signature of the key stands over exactly this, made within five minutes (Standard Webhooks, v1a)."""
    name, stamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not stamp.isdigit() or abs(time.time() - int(stamp)) > 300:
        return False
    for signature in headers.get("webhook-signature", "").split():
        version, _, value = signature.partition(",")
        try:
            key.verify(b64decode(value), f"{name}.{stamp}.".encode() + body)
        except (InvalidSignature, ValueError):
            continue
        return version == "v1a"
    return False


class Hook(BaseHTTPRequestHandler):
    """Takes what the node tells."""

    key: Ed25519PublicKey

    def do_POST(self) -> None:
        """2xx confirms: the node says in its ledger that we have the message. Anything else, and it is told again."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if not genuine(self.headers, body, self.key):
            self.send_response(401)
        else:
            name = self.headers["webhook-id"]
            if name not in NOTED:  # it may be told again: after a crash, or where the answer got lost
                NOTED.add(name)
                print(name, json.loads(body)["data"]["thread"], flush=True)
            self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """No access log."""


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    Hook.key = Ed25519PublicKey.from_public_bytes(b64decode(sys.argv[2].removeprefix("whpk_")))
    with HTTPServer(("127.0.0.1", int(sys.argv[1])), Hook) as server:
        server.serve_forever()
