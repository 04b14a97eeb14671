"""An event loop in virtual time: nothing waits for a clock, nothing runs in a thread, and one seed gives one history."""

import asyncio
from collections.abc import Callable
from typing import Any

_ROUNDS_MAX = 60_000  # the longest of 400 seeds had 21,280


class VirtualLoop(asyncio.BaseEventLoop):
    """Where nothing is ready its time jumps to what is due next. There are no sockets."""

    def __init__(self) -> None:
        super().__init__()
        self._now, self._rounds = 0.0, 0
        self._selector = self

    def time(self) -> float:
        """Seconds since it was made."""
        return self._now

    def select(self, timeout: float | None) -> list[Any]:
        """What `BaseEventLoop` asks a selector; waiting is free."""
        if timeout is None:
            raise RuntimeError("everything waits for ever")
        self._now, self._rounds = self._now + timeout, self._rounds + 1
        if self._rounds > _ROUNDS_MAX:
            self._rounds = 0  # tasks are still to be ended
            raise RuntimeError("it turns for ever")
        return []

    def _process_events(self, events: list[Any]) -> None:
        pass

    def _write_to_self(self) -> None:
        pass

    def run_in_executor(self, executor: object, func: Callable[..., Any], *args: Any) -> Any:
        """At once: threads are what no seed can repeat."""
        done = self.create_future()
        try:
            done.set_result(func(*args))
        except BaseException as error:  # whatever a thread would have handed over
            done.set_exception(error)
        return done
