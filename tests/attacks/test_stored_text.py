"""U01: what others wrote is text on every page, wherever it stands: each text of what a page shows is an attack once."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from jinja2 import UndefinedError

from gateway.console.explorer import Compared, page
from gateway.console.words import DIFFERENCES
from gateway.http.picture import chain_page, check_page, diversion_page, evidence_page, report_page
from gateway.services.explore import Figures
from protocols.ledger.reconcile import Difference, Direction
from protocols.messages.chain import Told, chain_of
from protocols.ports.rows import Contradiction, Gap
from protocols.problems import CODES, ProblemError
from tests.federation import Federation, trace_request
from tests.protocols.test_chain import EXPORTED, FOUND, MADE, SOLD
from tests.services.test_evidence import check, evidence

ATTACK = "\"'></title></svg><img src=x onerror=alert(1)><script>alert(2)</script>{{ 7919 * 7919 }}"
_HOP = {"hop": 1, "counterpart": "n/b", "state": "ANSWERED", "result": "TRACED_TO_DEALER", "problem": "msg.expired"}
_COUNTS = dict.fromkeys(("requests", "answered", "refused", "silent", "withdrawn", "open", "late"), 1)
_ROW = {"member": "n/b", **_COUNTS, "grounds": {"ITI22_NATIONAL_SECURITY": 1}, "median_days": 3}
_AT = datetime(2026, 1, 1, tzinfo=UTC)
_FIGURES = Figures(first=0, end=1, kinds=Counter(), members=Counter(), days=Counter())
_DIRECTION = Direction(
    sender="n/a", recipient="n/b", sent=1, receipted=1, refused=0, undelivered=0, pending=0, unanswered=0, later=0, elsewhere=0,
    took_s=None,
)  # fmt: skip
_ENTRY = {
    "log": "0", "index": 1, "at": "2026", "kind": "sent", "code": "c", "actor": "a", "grade": "signed", "message": "m",
}  # fmt: skip
SAMPLES: dict[str, tuple[Callable[[Any], str], Any]] = {
    "chain": (
        chain_page,
        {"thread": "t", "hops": [_HOP]} | chain_of([Told(member="n/a", events=[MADE, EXPORTED, SOLD])], FOUND),
    ),
    "diversion": (
        diversion_page,
        {"threads": 2, "patterns": [{"kind": "SAME_DEALER", "what": "one dealer", "threads": ["t1", "t2"]}]},
    ),
    "check": (
        check_page,
        {
            "rows": 1, "flagged": 1, "not_permitted": "why", "likely": {"PERSON": 1}, "ask": {"n/b": 1}, "kinds": {"make": 1},
            "lines": [{"line": 2, "advice": "a", "findings": [{"pointer": "/weapon/make", "message": "m", "fix": "f"}]}],
        },
    ),
    "report": (
        report_page,
        {"year": 2026, "member": "n/a", "sdg_16_4_2": {"traced": 1, "seized": 2}, "asked": [_ROW], "answered": [_ROW]},
    ),
    "threads": (
        lambda given: _console("thread.html", **given),
        {"thread": "t", "wrong": "why", "entries": [_ENTRY]},
    ),
    "ledgers": (
        lambda given: _console("ledgers.html", ledgers=[given]),
        {"origin": "n/b/2026.1", "log": "0", "problem": "why"},
    ),
    "figures": (
        lambda given: _console("figures.html", origin=given["origin"], log="0", found=_FIGURES, tables=[("T", "kind", [(given["kind"], 1)])]),
        {"origin": "n/b/2026.1", "kind": "sent"},
    ),
    "differences": (
        lambda given: _console(
            "differences.html",
            compared=Compared(
                directions=[replace(_DIRECTION, sender=given["sender"], recipient=given["recipient"])],
                found=[Difference(kind="sent.content", member=given["member"], index=1, other=2, id=None)],
            ),
            log="0", owner=given["owner"], most=9, says=DIFFERENCES,
        ),
        {"sender": "n/a", "recipient": "n/b", "member": "n/a", "owner": "n/b"},
    ),
    "differences that cannot be told": (
        lambda given: _console("differences.html", compared=Compared(problem=given["problem"])),
        {"problem": "why"},
    ),
    "gaps": (
        lambda given: _console(
            "gaps.html",
            gaps=[(Gap(origin=given["origin"], first=1, last=2, since=_AT), True)],
            twice=[Contradiction(origin=given["origin"], first=1, second=2)],
            alarms=[(given["origin"], given["code"], CODES["ledger.gap"])],
        ),
        {"origin": "n/b/2026.1", "code": "ledger.gap"},
    ),
    "login": (lambda given: _console("login.html", **given), {"link": "l", "wrong": "why"}),
    "wrong": (
        lambda given: _console("wrong.html", problem=ProblemError("tile.missing", given["detail"])),
        {"detail": "why"},
    ),
}  # fmt: skip


def _console(name: str, **given: Any) -> str:
    return page(name, inside=True, trusted=False, vouched=True, **given).text or ""


def attacked(value: Any) -> Iterator[Any]:
    """The same once for each text in it, which is the attack there; names of members of an object too."""
    if isinstance(value, str):
        yield ATTACK
    elif isinstance(value, list):
        for n, each in enumerate(value):
            yield from ([*value[:n], other, *value[n + 1 :]] for other in attacked(each))
    elif isinstance(value, dict):
        for name, each in value.items():
            yield from (value | {name: other} for other in attacked(each))
            yield {ATTACK if key == name else key: kept for key, kept in value.items()}


def harmless(text: str) -> bool:
    return "<img src=x" not in text and "<script>alert" not in text and "62710561" not in text


@pytest.mark.parametrize("name", SAMPLES)
def test_u01_each_text_of_a_page_is_shown_as_text(name: str) -> None:
    made, sample = SAMPLES[name]
    shown = 0
    assert harmless(made(sample))
    for hostile in attacked(sample):
        try:
            text = made(hostile)
        except (KeyError, ValueError, TypeError, UndefinedError):
            continue  # a code of a closed list, or a name that has to be there
        assert harmless(text), hostile
        shown += "&lt;img src=x" in text
    assert shown, "none of them was on the page"


async def test_u01_what_a_message_says_is_text_in_what_is_printed_of_its_evidence(fed: Federation) -> None:
    a, b = await fed.nodes("a", "b")
    body = trace_request("ABC1234")
    body["weapon"]["make"]["raw"] = body["requester"]["name"] = ATTACK
    sent = await a.send(replace(a.draft(b), body=body))
    await a.becomes(sent, "delivered")
    data = await evidence(a, sent)
    text = evidence_page(check(data, fed.root), data, fed.root, fed.clock.now())
    assert (harmless(text), "&lt;img src=x" in text) == (True, True)
