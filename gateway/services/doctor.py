"""Doctor: what is wrong with a node, why it matters and how to mend it; the checks that need no I/O."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from statistics import median
from typing import Literal
from uuid import UUID

from protocols.directory import Directory
from protocols.limits import EXPIRES_MAX_S, REQUEST_AHEAD_MAX_S
from protocols.ports.rows import Gap
from protocols.problems import ProblemError

State = Literal["ok", "warning", "wrong", "not tried"]
DISK_FREE_MIN_BYTES = 512 * 1024**2  # a day of heavy traffic with its write-ahead log
DISK_FREE_LOW_BYTES = 4 * DISK_FREE_MIN_BYTES
CLOCK_FIX = "Compare this machine with a time server: timedatectl timesync-status (or chronyc tracking), and set it."


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One check: what was found and, unless it is ok, why it matters and the exact fix."""

    step: str
    state: State
    what: str = ""
    why: str = ""
    fix: str = ""

    def shown(self) -> dict[str, str]:
        """As JSON, without what is empty."""
        return {name: value for name, value in asdict(self).items() if value}


def wrong(step: str, what: str, why: str, fix: str) -> Step:
    """A check that found something wrong."""
    return Step(step=step, state="wrong", what=what, why=why, fix=fix)


def broken(step: str, problem: ProblemError, why: str, fix: str = "") -> Step:
    """A check that ended in a problem: its own fix is the nearest one."""
    own = problem.errors[0].fix if problem.errors else problem.kind.fix
    return wrong(step, problem.detail or problem.kind.title, why, fix or own)


def disk(place: str, folder: str, free: int) -> Step:
    """Whether the file system of a folder has room: `free` in bytes."""
    shown = f"{free / 1024**3:.1f} GiB free for the {place}"
    if free >= DISK_FREE_LOW_BYTES:
        return Step(step="disk", state="ok", what=shown)
    why = "On a full disk the database stops, the node answers `store.full`, and nothing is received or sent."
    fix = f"Free or add space: df -h {folder}; du -xh {folder} | sort -h | tail"
    state: State = "wrong" if free < DISK_FREE_MIN_BYTES else "warning"
    return Step(step="disk", state=state, what=f"only {shown}", why=why, fix=fix)


def clock(behind: timedelta, ahead_of_us: Mapping[str, timedelta]) -> Step:
    """This machine's clock beside the newest entry of our ledger (`behind`) and others' clocks (theirs less ours)."""
    if behind.total_seconds() > REQUEST_AHEAD_MAX_S:
        what = f"this machine's clock is {span(behind)} behind the newest entry of our own ledger"
        why = "The node stands still in time: what it signs looks old to its peers, and deadlines are judged wrongly."
        return wrong("clock", what, why, CLOCK_FIX)
    if not ahead_of_us:
        return Step(step="clock", state="ok", what="nothing here contradicts it, and nobody else could be asked")
    apart = {name: each for name, each in ahead_of_us.items() if abs(each.total_seconds()) > REQUEST_AHEAD_MAX_S}
    if not apart:
        return Step(step="clock", state="ok", what=f"agrees with {len(ahead_of_us)} others")
    if 2 * len(apart) <= len(ahead_of_us):
        what = f"the clock of {', '.join(sorted(apart)[:3])} is not that of this machine and the others"
        why = "Requests between two whose clocks differ by minutes are refused (`httpsig.time`)."
        fix = "Tell its administrator; this machine's clock agrees with the majority."
        return Step(step="clock", state="warning", what=what, why=why, fix=fix)
    off = timedelta(seconds=median(each.total_seconds() for each in apart.values()))
    side = "behind" if off > timedelta(0) else "ahead of"
    what = f"this machine's clock is {span(off)} {side} that of {', '.join(sorted(apart)[:3])}"
    why = "Peers refuse requests that are over 300 s old or 60 s early (`httpsig.time`): nothing is delivered."
    return wrong("clock", what, why, CLOCK_FIX)


def span(time: timedelta) -> str:
    """A length of time in its largest unit."""
    seconds = abs(time.total_seconds())
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def listing(
    directory: Directory,
    member: str,
    *,
    url: str,
    pin: str | None,
    origin: str | None,
    vkeys: Collection[str] | None,
    node: str,
) -> list[Step]:
    """Whether the directory lists us as we are: address, TLS key (`pin` None over plain HTTP), ledger and its keys."""
    request = f"tracewire member request {node}, and send the file to the directory's authority"
    record = directory.records.get(member)
    if record is None or not directory.active(member):
        what = "the directory does not list this member" if record is None else "the directory lists us as not active"
        fix = f"Run {request}." if record is None else "Ask the directory's authority why."
        return [wrong("listing", what, "No peer takes anything from a member that is not listed and active.", fix)]
    found = []
    listed = record.endpoint
    if pin is not None and (listed is None or pin not in listed.spki):
        why = "Peers pin the TLS key that the directory lists: they break off every connection to this node."
        fix = f"Put the listed key and certificate back (tls_key, tls_certificate), or list this one: {request}."
        found.append(wrong("certificate", "the TLS certificate's key is not one that the directory lists", why, fix))
    if listed is not None and listed.url.rstrip("/") != url.rstrip("/"):
        why = "Peers call the listed address, and this node answers only requests that were signed for its own."
        fix = f"Correct exchange_url in tracewire.toml, or: {request}."
        found.append(wrong("listing", "the directory lists another exchange_url than tracewire.toml", why, fix))
    ledger = directory.ledgers.get(origin) if origin else None
    if origin and (ledger is None or ledger.state != "open"):
        why = "The node waits, and signs nothing, until its ledger is listed as open."
        found.append(wrong("listing", "the directory does not list our ledger as open", why, f"Run {request}."))
    elif ledger and vkeys is not None and {str(ledger.keys.ed25519), str(ledger.keys.mldsa44)} != set(vkeys):
        why = "Nobody could verify what these keys sign; the node does not start."
        fix = f"Put the key folder back from its backup: {node}/keys."
        found.append(wrong("listing", "the directory lists other keys for our ledger than we hold", why, fix))
    return found or [Step(step="listing", state="ok", what=f"active in version {directory.ref.version}, as we are")]


def ledger_fix(guarded: int | None, size: int, node: str) -> str:
    """The way out of a ledger that must not be signed further, by the guard's size and the database's."""
    ask = f"tracewire ledger recover {node}"
    if guarded is not None and guarded > size:
        return (
            f"Stop the node. The database holds {size} entries, the guard remembers {guarded}: bring back the newest copy "
            f"(a replica, or the backup with its write-ahead log), never an older guard. Then: {ask}. Where the entries "
            "are lost for good, have the authority abandon this ledger."
        )
    return f"Stop the node, then ask all members what they hold of this ledger: {ask}"


def contents(missing: Sequence[tuple[str, UUID]], lost: int) -> list[Step]:
    """Whether content is missing if and only if an `erased` entry says so; `lost`: keys that nothing opens."""
    if lost:
        what = f"{lost} keys of content are under a generation of the key store that is gone"
        why = "What they open is shown as missing, until the node has taken what was kept of them, or for good."
        fix = "Start the node, and look again. If it stays: put the newest backup of NODE/keys back."
        return [wrong("content", what, why, fix)]
    if not missing:
        return [Step(step="content", state="ok", what="nothing is missing that nobody ordered to be erased")]
    what = f"content and ledger disagree about {len(missing)} messages, as {missing[0][1]} of {missing[0][0]}"
    why = "Content is gone although no entry says that it was erased, or came back with an older database."
    fix = "Bring back the newest copy of the database, or find out who deleted rows of the table `content`."
    return [wrong("content", what, why, fix)]


def schema(found: str, newest: str, fix: str) -> Step:
    """The database's schema version beside that of this program."""
    if found == newest:
        return Step(step="schema", state="ok", what=f"version {newest}")
    if found > newest:
        fix = "Run the version of tracewire that migrated it, or a newer one."
    why = "Statements of this version fail, or write what the other version reads wrongly."
    what = f"the database's schema is {f'version {found}' if found else 'not there'}; this program needs {newest}"
    return wrong("schema", what, why, fix)


def numbers(gaps: Sequence[Gap], now: datetime) -> list[Step]:
    """Numbers of members' messages that never came (docs/protocol.md section 3, pair_seq): late ones, and missing ones."""
    found = []
    for gap in gaps:
        missing = now - gap.since > timedelta(seconds=EXPIRES_MAX_S)
        which = str(gap.first) if gap.first == gap.last else f"{gap.first}..{gap.last}"
        what = f"{gap.origin}: message {which} to us has not come, a later one was logged {span(now - gap.since)} ago"
        why = "It was never delivered, or what we held of it is gone: its sender's ledger says what became of it."
        fix = f"Ask {gap.origin.rpartition('/')[0]}: it may be on its way still, until it expires."
        if missing:
            fix = f"Ask {gap.origin.rpartition('/')[0]} for its `undelivered` entries of these numbers."
        found.append(Step(step="numbers", state="warning", what=what, why=why, fix=fix))
    return found or [Step(step="numbers", state="ok", what="no message that a member numbered for us is missing")]
