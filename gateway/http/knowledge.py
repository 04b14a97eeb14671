"""What the node knows of weapons and of whom to ask, without sending or storing anything."""

from dataclasses import asdict

from aiohttp import web

from gateway.http.derived import Checked, DiversionReport, Identified, MarkingNotices
from gateway.http.documents import TraceCheck
from gateway.http.openapi import Asked, Operation
from gateway.http.serve import json_response
from gateway.services.check import Check
from gateway.services.diversion import Diversions
from gateway.services.notices import Notices
from protocols.messages.identify import Texts, identify, kind_json


class Knowledge:
    """The dry runs."""

    def __init__(self, check: Check, notices: Notices, diversions: Diversions) -> None:
        self._check, self._notices, self._diversions = check, notices, diversions

    def operations(self) -> tuple[Operation, ...]:
        """Dry runs change nothing, so they need no key."""
        return (
            Operation(
                method="GET", path="/v1/diversion-patterns", scope="trace:read", call=self.get_patterns, answer=DiversionReport,
                problems=("auth.purpose",),
            ),
            Operation(
                method="GET", path="/v1/marking-notices", scope="trace:read", call=self.get_notices, answer=MarkingNotices,
                problems=("auth.purpose",),
            ),
            Operation(
                method="POST", path="/v1/firearms/identify", scope="trace:read", call=self.post_identify, body=Texts, answer=Identified,
            ),
            Operation(
                method="POST", path="/v1/trace-checks", scope="trace:read", call=self.post_check, body=TraceCheck, answer=Checked,
                problems=("dir.stale",),
            ),
        )  # fmt: skip

    async def get_patterns(self, request: web.Request, asked: Asked) -> web.Response:
        """Look for what answered traces have in common: serial runs, transfers, embargoes, short times, dealers, stocks.

        Each pattern names its threads, and no person. `tracewire report diversion` makes a page or a CSV of it. Each reading is an entry in the ledger
        for every message of the threads that are shown.
        """
        del request
        return json_response(await self._diversions.report(asked.caller))

    async def get_notices(self, request: web.Request, asked: Asked) -> web.Response:
        """List how weapons are marked, as States and makers told us or we told them: the newest version of each notice.

        Each reading of one is an entry in the ledger.
        """
        del request
        return json_response({"notices": await self._notices.shown(asked.caller)})

    async def post_identify(self, request: web.Request, asked: Asked) -> web.Response:
        """Make codes and readings of what an examiner wrote about a weapon, in English, Portuguese, Spanish or French.

        The weapon is one that a trace request takes; `raw` stays as it was written, and what looks damaged is flagged with its repair.
        """
        del request
        found = identify(asked.body)
        findings = [asdict(each) for each in found.findings]
        kinds = [kind_json(kind, score) for kind, score in found.kinds]
        return json_response({"weapon": found.weapon, "findings": findings, "kinds": kinds})

    async def post_check(self, request: web.Request, asked: Asked) -> web.Response:
        """Try a trace request: what is missing, to whom it should go and why, what is likely to come of it.

        Nothing is sent or stored. A request with faults is answered too, with what to correct.
        """
        del request
        said: TraceCheck = asked.body
        return json_response(
            self._check.check(
                said.body, to=said.to, handling=said.handling, parts=said.parts or {}, expires=said.expires
            )
        )
