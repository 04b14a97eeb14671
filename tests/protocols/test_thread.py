"""The life of a thread: both ends go through every order of messages, and agree when all has arrived."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any
from uuid import UUID

import pytest

from protocols.exchange.message import Message
from protocols.problems import ProblemError
from protocols.thread import (
    ENDED,
    ROUNDS_MAX,
    TABLE,
    Leg,
    Said,
    delivered,
    elapsed,
    event_of,
    happened,
    heard,
    open_leg,
    said_of,
    spoken,
)
from tests.protocols.bodies import VALID, refusal, response

START = datetime(2026, 11, 2, tzinfo=UTC)
DAY = timedelta(days=1)
THREAD = UUID(int=1)
SPEAKERS = {name: event.by for name, event in TABLE["trace.request"].items() if event.by != "none"}
ALL = sorted(SPEAKERS)
DIALOGUE = [
    "trace.acknowledgement", "trace.clarification", "trace.clarification-answer", "trace.refusal/delay", "trace.status",
]  # fmt: skip


def uid(number: int) -> UUID:
    return UUID(int=number + 10)


def request(due: datetime = START + 30 * DAY) -> Said:
    return Said(event="trace.request", id=uid(0), created=START, due=due, acknowledge_by=START + 2 * DAY)


def leg(role: Any = "answerer", **changes: Any) -> Leg:
    return replace(
        open_leg(request(), thread=THREAD, counterpart="n/x", role=role, at=START), **{"late_ms": 0} | changes
    ).wound()


class TwoEnds:
    """Two legs of one request, what is on its way between them in any order, and one calendar; every second seed asks and delays much.

    The request came at once or days late; its receipt comes when it comes.
    """

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.came = self.now = START + self.random.choice((0, 0, 6)) * DAY
        self.history = [f"seed {seed}: the request comes on {self.came:%j}"]
        self.events = ALL if seed % 2 else DIALOGUE
        said = replace(request(), acknowledge_by=self.came + 2 * DAY)
        self.legs = {
            role: open_leg(said, thread=THREAD, counterpart="n/x", role=role, at=at)  # type: ignore[arg-type]
            for role, at in (("asker", START), ("answerer", self.came))
        }
        self.receipted = False
        self.flying: dict[str, list[Said]] = {"asker": [], "answerer": []}

    def step(self) -> None:
        kind = self.random.choice((self.say, self.say, self.arrive, self.wait, self.receipt))
        kind()
        for role, found in self.legs.items():
            while (after := elapsed(found, self.now)[0]) is not found:
                found = self.legs[role] = after  # noqa: PLW2901
        self.nobody_is_stuck()
        if self.receipted and not any(self.flying.values()):
            asker, answerer = self.legs["asker"], self.legs["answerer"]
            assert (asker.state, asker.lapses) == (answerer.state, answerer.lapses), self.history

    def say(self) -> None:
        role, event = self.random.choice(("asker", "answerer")), self.random.choice(self.events)
        found, day = self.legs[role], self.now + self.random.randrange(40) * DAY
        said = Said(
            event=event, id=uid(len(self.history)), created=self.now, in_reply_to=found.question,
            pauses=self.random.random() < 0.3, review=day, expected=day,
        )  # fmt: skip
        try:
            self.legs[role] = spoken(found, said, self.now)
        except ProblemError as problem:
            assert problem.code == "thread.state"
            return
        assert SPEAKERS[event] in ("both", role)
        self.flying["answerer" if role == "asker" else "asker"].append(said)
        self.history.append(f"{self.now:%j} {role} says {event}")

    def arrive(self) -> None:
        for role in self.random.sample(("asker", "answerer"), 2):
            if waiting := self.flying[role]:
                said = waiting.pop(self.random.randrange(len(waiting)))
                self.history.append(f"{self.now:%j} {role} hears {said.event} of {said.created:%j}")
                self.legs[role] = heard(self.legs[role], said, self.now)
                return

    def receipt(self) -> None:
        if not self.receipted:
            self.receipted = True
            self.history.append("the receipt comes")
            self.legs["asker"] = delivered(self.legs["asker"], self.came, self.came + 2 * DAY)

    def wait(self) -> None:
        self.now += self.random.choice((1, 5, 20, 31)) * DAY

    def nobody_is_stuck(self) -> None:
        for role, found in self.legs.items():
            if found.state == "CLOSED":
                continue
            can = {name for name in ALL if found.state in TABLE["trace.request"][name].moves and SPEAKERS[name] == role}
            assert can or (role == "answerer" and found.state == "WITHDRAWN"), (role, found.state)


def test_two_ends_that_have_seen_the_same_messages_are_in_the_same_state() -> None:
    for seed in range(8_000):
        ends = TwoEnds(seed)
        for _ in range(ends.random.choice((10, 20, 40))):
            ends.step()


def test_what_a_message_says_to_its_leg() -> None:
    events = {
        "trace.response": (response(), "trace.response"),
        "interim": (response(final=False), "trace.response/interim"),
        "partial": (response("PARTIAL_RESTRICTED"), "trace.response/partial"),
        "refusal": (refusal(), "trace.refusal"),
        "restricted": (refusal(kind="RESTRICTED_CONTENT"), "trace.response/partial"),
        "delay": (refusal(kind="DELAY", review_on="2027-01-01"), "trace.refusal/delay"),
        "progress": (VALID["trace.status"], "trace.status"),
        "closed": ({"state": "CLOSED"}, "trace.status/closed"),
    }
    for name, (body, event) in events.items():
        type_ = {"progress": "trace.status", "closed": "trace.status"}.get(name) or event.partition("/")[0]
        type_ = "trace.refusal" if name == "restricted" else type_
        assert event_of(type_, body) == event, name
    message = Message(
        id=uid(1), type="trace.refusal", sender="n/a", recipient="n/b", thread=THREAD, in_reply_to=None, created=START,
        expires=START + DAY, due=None, handling={}, salt=bytes(32), parts=(),
        body=refusal(kind="DELAY", review_on="2027-01-01"),
    )  # fmt: skip
    said = said_of(message, acknowledge_by=START)
    assert said.acknowledge_by is None, "of a request alone"
    assert said.review == datetime(2027, 1, 2, tzinfo=UTC), "the whole day counts"


def test_the_clock_stands_while_a_question_is_open_and_runs_on_with_what_was_left() -> None:
    asked = spoken(leg(), Said(event="trace.clarification", id=uid(1), created=START + DAY, pauses=True), START + DAY)
    assert (asked.state, asked.lapses) == ("CLARIFYING", None)
    answer = Said(event="trace.clarification-answer", id=uid(2), created=START + 11 * DAY, in_reply_to=uid(1))
    assert heard(asked, answer, START + 12 * DAY).lapses == START + 40 * DAY
    running = spoken(leg(), Said(event="trace.clarification", id=uid(1), created=START), START)
    assert running.lapses == START + 30 * DAY, "unless the question says RUNNING"


def test_where_a_request_came_late_its_time_runs_from_there() -> None:
    late = START + 6 * DAY
    answerer = open_leg(request(), thread=THREAD, counterpart="n/x", role="answerer", at=late)
    asker = open_leg(request(), thread=THREAD, counterpart="n/x", role="asker", at=START)
    assert asker.lapses is None, "no clock runs before it is delivered"
    asker = delivered(asker, late, late + 2 * DAY)
    assert asker.owed == answerer.owed == START + 36 * DAY
    unknown = open_leg(request(), thread=THREAD, counterpart="n/x", role="asker", at=START)
    told = heard(unknown, Said(event="trace.acknowledgement", id=uid(1), created=late + DAY), late + DAY)
    assert told.lapses == START + 37 * DAY, "by then it had come"
    assert delivered(told, late, late + 2 * DAY).lapses == START + 36 * DAY
    reminder = spoken(unknown, Said(event="trace.reminder", id=uid(1), created=START + 31 * DAY), START + 31 * DAY)
    assert reminder.state == "SENT"
    assert heard(answerer, Said(event="trace.reminder", id=uid(1), created=START + 31 * DAY), late).state == "DELIVERED"
    assert asker.lapses == late + 2 * DAY
    prompt = open_leg(request(), thread=THREAD, counterpart="n/x", role="answerer", at=START + DAY / 1_000)
    assert prompt.due == START + 30 * DAY


def test_silence_is_an_outcome_that_an_answer_or_a_delay_ends() -> None:
    silent = happened(leg(), "lapsed", START + 30 * DAY)
    assert (silent.state, silent.lapses) == ("SILENT", None)
    late = Said(event="trace.response", id=uid(1), created=START + 31 * DAY)
    assert spoken(silent, late, START + 31 * DAY).state == "ANSWERED"
    delay = Said(event="trace.refusal/delay", id=uid(1), created=START, review=START + 90 * DAY)
    assert spoken(silent, delay, START).lapses == START + 90 * DAY
    assert spoken(silent, Said(event="trace.acknowledgement", id=uid(1), created=START), START).state == "SILENT"


def question(number: int, day: int) -> Said:
    return Said(event="trace.clarification", id=uid(number), created=START + day * DAY)


def answer(to: Said, number: int, day: int) -> Said:
    return Said(event="trace.clarification-answer", id=uid(number), created=START + day * DAY, in_reply_to=to.id)


def test_a_delay_that_ends_the_silence_finds_the_question_that_was_open() -> None:
    asked = question(1, 1)
    delay = Said(event="trace.refusal/delay", id=uid(2), created=START + 16 * DAY, review=START + 31 * DAY)
    answerer = spoken(spoken(leg("answerer"), asked, START + DAY), delay, START + 16 * DAY)
    silent = elapsed(heard(leg("asker"), asked, START + DAY), START + 30 * DAY)[0]
    assert (answerer.state, silent.state) == ("CLARIFYING", "SILENT")
    asker = heard(silent, delay, START + 30 * DAY)
    assert (asker.state, asker.lapses) == (answerer.state, answerer.lapses)
    told = answer(asked, 3, 30)
    assert spoken(asker, told, START + 30 * DAY).state == heard(answerer, told, START + 31 * DAY).state == "IN_PROGRESS"
    assert heard(spoken(silent, told, START + 30 * DAY), delay, START + 31 * DAY).state == "IN_PROGRESS", "none is open"


def test_an_answer_to_the_question_before_the_last_is_taken_and_leaves_the_last_open() -> None:
    first, second, late = question(1, 1), question(3, 31), START + 32 * DAY
    answerer = spoken(happened(spoken(leg("answerer"), first, START), "lapsed", late), second, late)
    told = answer(first, 2, 31)
    assert heard(answerer, told, late).state == "CLARIFYING"
    assert heard(answerer, answer(second, 4, 32), late).state == "IN_PROGRESS"
    with pytest.raises(ProblemError, match=r"thread\.state"):
        spoken(heard(heard(leg("asker"), first, START), second, late), told, late)


def test_a_question_is_answered_once() -> None:
    asked, late = question(1, 1), START + 31 * DAY
    silent = happened(heard(leg("asker"), asked, START), "lapsed", late)
    with pytest.raises(ProblemError, match=r"thread\.state"):
        spoken(spoken(silent, answer(asked, 2, 31), late), answer(asked, 3, 32), late)
    older = leg("answerer", state="CLARIFYING", question=asked.id, rounds=1)
    assert heard(older, answer(asked, 2, 2), late).state == "IN_PROGRESS", "as older software left it"


def test_the_question_asked_last_is_the_one_whichever_comes_first() -> None:
    first, second, late = question(1, 1), question(3, 31), START + 32 * DAY
    asker = heard(heard(leg("asker"), second, late), first, late)
    assert (asker.state, asker.question, asker.rounds) == ("CLARIFYING", second.id, 2)
    told = spoken(heard(leg("asker"), second, late), answer(second, 4, 32), late)
    assert heard(told, first, late).state == "IN_PROGRESS"


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (leg("answerer"), Said(event="trace.response", id=uid(1), created=START)),
        (leg("asker"), Said(event="trace.withdrawal", id=uid(1), created=START)),
        (leg("asker", rounds=ROUNDS_MAX), Said(event="trace.clarification", id=uid(1), created=START)),
        (leg("answerer"), Said(event="trace.clarification-answer", id=uid(1), created=START, in_reply_to=uid(5))),
        (leg("answerer", question=uid(4)), Said(event="trace.clarification-answer", id=uid(1), created=START, in_reply_to=uid(5))),
        (leg("answerer"), Said(event="trace.reminder", id=uid(1), created=START + DAY)),
        (leg("answerer", expected=START + 3 * DAY), Said(event="trace.reminder", id=uid(1), created=START + 2 * DAY)),
        (leg("asker"), Said(event="reference.answer", id=uid(1), created=START)),
        (leg("answerer"), Said(event="trace.request", id=uid(1), created=START)),
    ],
    ids=["a role of its own", "the asker's word", "a fourth round", "no question", "another question", "too early",
         "before the day that was named", "another kind of thread", "a second request"],
)  # fmt: skip
def test_what_no_order_of_messages_explains_is_refused(found: Leg, said: Said) -> None:
    with pytest.raises(ProblemError, match=r"msg\.correlation"):
        heard(found, said, START)


def test_a_reminder_is_in_order_once_the_day_has_passed() -> None:
    said = Said(event="trace.reminder", id=uid(1), created=START + 4 * DAY)
    assert heard(leg(expected=START + 3 * DAY), said, START + 4 * DAY).state == "DELIVERED"


def test_every_kind_of_thread_has_its_answer_and_its_end() -> None:
    for kind, answer in (("reference.query", "reference.answer"), ("registry.search", "registry.hit")):
        said = Said(event=answer, id=uid(1), created=START)
        assert spoken(leg("answerer", kind=kind), said, START).state == "ANSWERED"
        assert heard(leg("asker", kind=kind), said, START).state == "ANSWERED"
    gone = Said(event="registry.withdrawal", id=uid(1), created=START)
    assert heard(leg("answerer", kind="registry.record"), gone, START).state == "WITHDRAWN"
    assert leg("asker", kind="marking.notice").state not in ENDED, "a notice waits for nothing"
    assert {
        name.partition("/")[0] for table in TABLE.values() for name, each in table.items() if each.by != "none"
    } | set(TABLE) == VALID.keys()


def test_what_waits_for_nothing_has_no_clock_and_no_clock_runs_out_of_the_calendar() -> None:
    for kind in TABLE.keys() - {"trace.request"}:
        said = Said(event=kind, id=uid(0), created=START, due=START + DAY)
        assert open_leg(said, thread=THREAD, counterpart="n/x", role="answerer", at=START).lapses is None, kind
    far = request(datetime(9999, 12, 31, 23, 59, tzinfo=UTC))
    found = replace(open_leg(far, thread=THREAD, counterpart="n/x", role="answerer", at=START), stood_ms=10**12).wound()
    assert found.lapses is not None
    assert found.lapses.year < 2100
