"""Port of an auditor: ledgers as C2SP tlog-tiles serves them, wherever they lie."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from protocols.ledger.checkpoint import LedgerKeys
from protocols.ledger.note import VerifierKey


class LedgerSource(Protocol):
    """Where ledgers are read from. Nothing that it gives is trusted but `keys` and `witnesses`."""

    async def ledgers(self) -> Mapping[str, LedgerKeys]:
        """The keys of each ledger, by origin, the newest last."""
        ...

    async def witnesses(self) -> Mapping[str, Sequence[VerifierKey]]:
        """Whose cosignatures count: by name, with every key that must have signed."""
        ...

    async def enough(self, origin: str, note: bytes, names: Sequence[str]) -> bool:
        """Whether a checkpoint that these witnesses cosigned has as many of them as are demanded."""
        ...

    async def note(self, origin: str) -> bytes:
        """The newest checkpoint; `ledger.not_ready` where there is none."""
        ...

    async def witnessed(self, origin: str) -> bytes | None:
        """The newest checkpoint that others have cosigned, with their signatures."""
        ...

    async def tile(self, origin: str, path: str) -> bytes:
        """A tile or entry bundle by its C2SP path; `tile.missing`."""
        ...
