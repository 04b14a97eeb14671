"""A node's loops end when they are told to, whatever happens in the same moment."""

import asyncio

import pytest

from tests.federation import Federation


@pytest.mark.parametrize("loop", ["deliver", "answer"])
async def test_a_loop_that_is_woken_and_cancelled_in_the_same_moment_ends(fed: Federation, loop: str) -> None:
    (node,) = await fed.nodes("a", registry=True)
    await node.stop()  # what the loop reads is away: it waits to be woken
    worker = getattr(node.parts, loop)
    for ticks in range(8):
        task = asyncio.ensure_future(worker.run())
        for _ in range(50):
            await asyncio.sleep(0)
        worker.wake()
        for _ in range(ticks):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task], timeout=5)
        assert task.cancelled(), ticks
