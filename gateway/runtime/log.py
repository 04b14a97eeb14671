"""Logging: JSON lines on stderr; keys from an allow-list, errors as type and place, so that no case data gets through."""

import logging
import sys
import time
import traceback
from collections.abc import MutableMapping
from typing import Any

import structlog

ALLOWED = frozenset(
    [
        "event",
        "level",
        "timestamp",
        "error",
        "where",
        "code",
        "cause",
        "why",
        "peer",
        "id",
        "messages",
        "origin",
        "index",
        "version",
        "listener",
        "address",
        "route",
        "dropped_keys",
        "left_out",
        "retry_s",
    ]
)

LINES_A_SECOND = 20


def _error(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Replaces an exception by its type and the last places of its trace: messages may repeat values."""
    if event.pop("exc_info", None):
        kind, error, trace = sys.exc_info()
        if kind is not None and error is not None:
            event["error"] = kind.__name__
            frames = traceback.extract_tb(trace)[-3:]
            event["where"] = [f"{frame.filename.rpartition('/')[2]}:{frame.lineno}" for frame in frames]
    return event


def _allow(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    dropped = sorted(event.keys() - ALLOWED)
    for name in dropped:
        del event[name]
    if dropped:
        event["dropped_keys"] = len(dropped)
    return event


class _Sampled:
    """At most LINES_A_SECOND of each event, so that nobody outside fills the disk; the next line says how many were left out."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[float, int]] = {}  # by the event's name: our own few words

    def __call__(self, _: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        name, now = str(event["event"]), time.monotonic()
        since, count = self._seen.get(name, (now, 0))
        if now - since >= 1:
            if count > LINES_A_SECOND:
                event["left_out"] = count - LINES_A_SECOND
            since, count = now, 0
        self._seen[name] = since, count + 1
        if count >= LINES_A_SECOND:
            raise structlog.DropEvent
        return event


class _AsEvent(logging.Handler):
    """Libraries' own records: logger and level only, since their texts are not ours to trust."""

    def emit(self, record: logging.LogRecord) -> None:
        structlog.get_logger().warning("library_logged", where=record.name, error=_kind_of(record))


def _kind_of(record: logging.LogRecord) -> str:
    return record.exc_info[0].__name__ if record.exc_info and record.exc_info[0] else record.levelname


def configure_logging() -> None:
    """Once a process."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _Sampled(),
            _error,
            _allow,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(handlers=[_AsEvent()], level=logging.WARNING, force=True)
