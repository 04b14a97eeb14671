"""Every crash point of faults.yaml and the call of a port that stands for it: a node's process is wrapped there.

K21 to K25 (witness, rotation, migration, courier, the long run) have tests of their own or are open: catalogue.py. `note` says where this design has no such
call and what is done instead.
"""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """Where a process is killed, or a call fails; `node` is who: a asks, b has the register; ab: by turns; `first`: the guard's first calls are of the start."""

    id: str
    node: str
    call: str
    when: str
    what: str = "kill"
    only: str | None = None
    under: str | None = None
    first: int = 1
    step: int = 2  # the k-th call, k = first + step * round
    times: int = 1
    note: str = ""

    @property
    def name(self) -> str:
        return f"{self.id} {self.call} {self.when} {self.what}"

    def victim(self, turn: int) -> str:
        return self.node[turn % len(self.node)]

    def wrap(self, turn: int) -> dict[str, Any]:
        return {
            "call": self.call, "when": self.when, "what": self.what, "only": self.only, "under": self.under,
            "k": self.first + self.step * (turn % 4), "times": self.times,
        }  # fmt: skip


KILLS = [
    Point(id="K01", node="a", call="ids.uuid7", when="before", under="prepare", step=5,
          note="validated, not yet a message: making its id is the first call of a port"),
    Point(id="K02", node="a", call="batch.write", when="before", only="OutboxRow",
          note="the head is locked, checks are done, nothing is written"),
    Point(id="K03", node="a", call="batch.commit", when="after", only="OutboxRow"),
    Point(id="K04", node="a", call="exchange.claim", when="after", step=1),
    Point(id="K05", node="a", call="transport.post", when="before", step=1,
          note="a message is sealed before it is committed: what may differ is only the proof"),
    Point(id="K06", node="a", call="transport.post", when="before", what="half", step=1,
          note="the port has no call in the midst of a body: the wrap sends the same header and half of the body itself"),
    Point(id="K07", node="a", call="transport.post", when="after", step=1,
          note="the answer is read and thrown away with the process"),
    Point(id="K08", node="a", call="exchange.proven", when="after", under="_exchange", step=1,
          note="the receipts are proven; settling them is the next step"),
    Point(id="K09", node="a", call="batch.write", when="after", only="settled", step=1),
    Point(id="K10", node="b", call="exchange.split", when="before", under="receive", step=1,
          note="the first call of a port after the body: no proof was looked at yet"),
    Point(id="K11", node="b", call="batch.standing", when="before", only="arrivals", step=1,
          note="opened and judged; the head is locked, but nothing is asked or written yet"),
    Point(id="K12", node="b", call="batch.write", when="after", only="InboxRow", step=1),
    Point(id="K13", node="b", call="batch.commit", when="after", only="InboxRow", step=1),
    Point(id="K14", node="b", call="exchange.undispatched", when="after", step=1,
          note="the register claims nothing: one task takes what is not dispatched, so there is no lease to wait for"),
    Point(id="K15", node="b", call="registry.search", when="after", step=5,
          note="the register was asked; `dispatched` and the answers are one change"),
    Point(id="K16", node="b", call="batch.commit", when="after", only="dispatched", step=1,
          note="the mark and its entry are one transaction: nothing lies between, so it dies right after it"),
    Point(id="K17", node="ab", call="batch.write", when="after"),
    Point(id="K18", node="ab", call="guard.raise_to", when="before", first=3),
    Point(id="K19", node="ab", call="guard.raise_to", when="before", what="torn", first=3,
          note="the port has no call in the midst of its file: the wrap leaves half a temporary file and dies"),
    Point(id="K20", node="ab", call="guard.raise_to", when="after", first=3),
]  # fmt: skip
FAILURES = [  # the other two flavours: it failed; it failed but it is there. The process lives on
    Point(id="K01", node="a", call="batch.standing", when="before", what="unavailable", times=2),
    Point(id="K02", node="ab", call="batch.commit", when="before", what="unknown",
          note="COMMIT failed and nothing is there: the batch is not found under the head lock and done again"),
    Point(id="K03", node="ab", call="batch.commit", when="after", what="unknown",
          note="COMMIT failed and everything is there: the batch is found by its id and answered"),
    Point(id="K05", node="a", call="transport.post", when="before", what="unreachable", step=1, times=3),
    Point(id="K07", node="a", call="transport.post", when="after", what="unreachable", step=1, times=3),
    Point(id="K15", node="b", call="registry.search", when="after", what="unavailable", step=5),
    Point(id="K18", node="ab", call="guard.raise_to", when="before", what="disk", first=3,
          note="a guard that cannot be written ends the process: what it would have answered stands"),
    Point(id="K20", node="ab", call="guard.raise_to", when="after", what="disk", first=3),
    Point(id="D12", node="ab", call="batch.write", when="after", what="40001", times=3,
          note="raised by PostgreSQL in the open transaction"),
    Point(id="D12", node="ab", call="batch.write", when="before", what="40P01", times=3),
]  # fmt: skip
POINTS = KILLS + FAILURES
QUICK = ("K02", "K03", "K07", "K13", "K18")  # one round of each in `make test`
