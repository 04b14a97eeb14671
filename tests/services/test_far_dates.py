"""Dates that break what counts in 32 bits or in local time: C04 of faults.yaml. Everything here is UTC in whole milliseconds."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from adapters.postgres.embedded import EmbeddedServer
from tests.federation import Federation, match_ledgers

DATES = {
    "32 bits end": datetime(2038, 1, 19, 3, 14, 8, tzinfo=UTC),
    "clocks go back in Europe": datetime(2032, 10, 31, 1, tzinfo=UTC),
}


@pytest.mark.parametrize("moment", list(DATES.values()), ids=list(DATES))
async def test_c04_messages_on_both_sides_of_a_moment_are_proven_alike(
    postgres: EmbeddedServer, tmp_path: Path, moment: datetime
) -> None:
    fed = Federation(postgres, tmp_path)
    fed.clock.ahead = moment - datetime.now(UTC) - timedelta(minutes=5)
    async with fed:
        a, b = await fed.nodes("a", "b")
        await a.becomes(await a.trace(b), "delivered")
        fed.clock.ahead += timedelta(minutes=10)
        await b.becomes(await b.trace(a), "delivered")
        await match_ledgers(a, b)
        times = [entry.at for entry in await a.entries()]
        assert times == sorted(times)
        assert times[0] < moment < times[-1]
