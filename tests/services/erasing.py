"""Erasing as two people do it; for tests."""

from uuid import UUID

import pytest

from gateway.services.erase import Order
from protocols.ports.access import Caller
from protocols.problems import ProblemError
from tests.federation import Json, Node, wait_until

ANNA = Caller(client="desk", actor="anna", scopes=frozenset(), purpose="TRACING")
BELA = Caller(client="other desk", actor="bela", scopes=frozenset())
COURT = "District court, order 12/26"


def order(sent: Json, *messages: Json, part: str = "") -> Order:
    return Order(
        thread=UUID(sent["thread"]), messages=[UUID(each["id"]) for each in messages], part=part, ground="COURT_ORDER",
        authority=COURT,
    )  # fmt: skip


async def grant(node: Node, wanted: Order) -> UUID:
    """Two people want it; the approval's id."""
    with pytest.raises(ProblemError) as problem:
        await node.parts.erase.order(wanted, ANNA)
    assert problem.value.code == "approval.needed"
    [row] = await node.parts.approve.waiting(None, 9)
    await node.parts.approve.rule(row.id, BELA, "APPROVED")
    return row.id


async def erase(node: Node, wanted: Order) -> Json:
    await grant(node, wanted)
    done = await node.parts.erase.order(wanted, ANNA)
    await carried_out(node)
    return done


async def carried_out(node: Node) -> None:
    async def there() -> bool:
        await node.parts.erase.erase()
        return not await node.count("erasure", "NOT done")

    await wait_until(there)
