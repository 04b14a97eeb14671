"""What every loop of the exchange does between two looks: it waits for an event, and so long at most."""

import asyncio


async def woken(event: asyncio.Event, wait_s: float) -> bool:
    """Whether the event is set within so many seconds."""
    try:
        async with asyncio.timeout(wait_s):
            return await event.wait()
    except TimeoutError:
        return False
