"""Databases with one bug each: what the simulation has to notice, or it notices nothing."""

import asyncio
from collections import defaultdict
from typing import Any
from uuid import UUID

from tests.simulation.store import Tables


class _Forgets(dict[Any, Any]):
    """Rows that nobody finds again under their keys, though they are there."""

    def __contains__(self, key: object) -> bool:
        return False

    def get(self, key: Any, default: Any = None) -> Any:
        return default


class _Everything(set[UUID]):
    """Has whatever is asked for."""

    def __contains__(self, key: object) -> bool:
        return True


class _NoLocks(defaultdict[str, asyncio.Lock]):
    """A new lock for whoever asks: nobody waits for anybody."""

    def __getitem__(self, key: str) -> asyncio.Lock:
        return asyncio.Lock()


def forgets_answers(name: str) -> Tables:
    """An Idempotency-Key is one message the first time only."""
    return Tables(name, answers=_Forgets())


def forgets_arrivals(name: str) -> Tables:
    """What came again is new."""
    return Tables(name, inbox=_Forgets())


def says_committed(name: str) -> Tables:
    """A lost COMMIT is always believed to have happened."""
    return Tables(name, batches=_Everything())


def no_locks(name: str) -> Tables:
    """Two processes extend one ledger at the same time."""
    return Tables(name, locks=_NoLocks())


BUGS = {bug.__name__: bug for bug in (forgets_answers, forgets_arrivals, says_committed, no_locks)}
