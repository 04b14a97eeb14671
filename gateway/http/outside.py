"""What `/v1` shows of the world outside: the other members, the way to them, and our ledger as they see it."""

from aiohttp import web

from gateway.http.documents import Peers, Probed
from gateway.http.openapi import OCTETS, Asked, Operation
from gateway.http.serve import json_response
from gateway.services.committed import LedgerView
from gateway.services.probe import Probe, probed_json
from gateway.services.read import Read
from gateway.services.submit import current
from protocols.ports.directory import DirectorySource


class Outside:
    """The operations about other members and the ledger."""

    def __init__(self, directory: DirectorySource, probe: Probe, ledger: LedgerView, read: Read) -> None:
        self._directory, self._probe, self._ledger, self._read = directory, probe, ledger, read

    def operations(self) -> tuple[Operation, ...]:
        """All of them."""
        read, audit, log = "trace:read", "ledger:read", "/v1/ledger/{log}"
        return (
            Operation(method="GET", path="/v1/peers", scope=read, call=self.get_peers, answer=Peers, problems=("dir.stale",), audited=True),
            Operation(
                method="POST", path="/v1/peers/{network}/{member}/probes", scope=read, call=self.post_probe, answer=Probed,
                problems=("member.unknown", "dir.stale"),
            ),
            Operation(
                method="GET", path=f"{log}/checkpoint", scope=audit, call=self.get_checkpoint, answers="text/plain",
                problems=("http.not_found",),
            ),
            Operation(
                method="GET", path=f"{log}/checkpoint.witnessed", scope=audit, call=self.get_witnessed, answers="text/plain",
                problems=("http.not_found", "dir.stale"),
            ),
            Operation(
                method="GET", path=f"{log}/tile/{{tile:.+}}", scope=audit, call=self.get_tile, answers=OCTETS,
                problems=("http.not_found", "tile.missing"),
            ),
        )  # fmt: skip

    async def get_peers(self, request: web.Request, asked: Asked) -> web.Response:
        """List the members of the directory in force."""
        del request, asked
        directory = current(self._directory)
        peers = [
            {
                "member": name,
                "name": record.name,
                "roles": list(directory.admitted[name].roles),
                "status": directory.admitted[name].status,
                **({"problem": directory.failing[name]} if name in directory.failing else {}),
                **record.model_dump(mode="json", include={"contact", "competences"}, exclude_defaults=True),
            }
            for name, record in directory.records.items()
        ]
        return json_response({"directory": directory.ref.version, "peers": peers})

    async def post_probe(self, request: web.Request, asked: Asked) -> web.Response:
        """Probe the way to a peer: name, connection, TLS key, clock, trust, rights, version, readiness.

        Each step takes 5 s at most; the first that fails is named with its fix. Nothing is stored on either side.
        """
        del asked
        return json_response(probed_json(await self._probe.ask("{network}/{member}".format_map(request.match_info))))

    async def get_checkpoint(self, request: web.Request, asked: Asked) -> web.Response:
        """Read the newest checkpoint of our ledger, a signed note."""
        del asked
        return web.Response(body=await self._ledger.own_note(request.match_info["log"]), content_type="text/plain")

    async def get_witnessed(self, request: web.Request, asked: Asked) -> web.Response:
        """Read our newest checkpoint that enough others have cosigned, with their signatures; else the one that most have."""
        del asked
        note = await self._ledger.witnessed_note(request.match_info["log"], current(self._directory))
        return web.Response(body=note, content_type="text/plain")

    async def get_tile(self, request: web.Request, asked: Asked) -> web.Response:
        """Read a hash tile or an entry bundle (C2SP tlog-tiles). That entries are read is an entry, once an hour."""
        path = f"tile/{request.match_info['tile']}"
        data = await self._ledger.tile(request.match_info["log"], path)
        if path.startswith("tile/entries/"):
            await self._read.ledger(asked.caller)
        return web.Response(body=data, content_type=OCTETS)
