"""The world outside: ids grow whatever the clock does."""

from datetime import UTC, datetime, timedelta

from gateway.runtime.world import SystemClock, SystemIds
from protocols.ledger.entry import uuid7


class Standing(SystemClock):
    """A clock that the test sets."""

    at = datetime(2026, 11, 2, tzinfo=UTC)

    def now(self) -> datetime:
        return self.at


def test_ids_grow_within_a_millisecond_and_where_the_clock_is_set_back() -> None:
    clock = Standing()
    ids = SystemIds(clock)
    made = [ids.uuid7() for _ in range(1_000)]
    clock.at -= timedelta(hours=1)
    made += [ids.uuid7() for _ in range(1_000)]
    clock.at += timedelta(hours=2)
    made.append(ids.uuid7())
    assert made == sorted(set(made))
    assert all(uuid7(str(each)) == each for each in made)
    assert made[-1].int >> 80 == int(clock.at.timestamp() * 1_000)
