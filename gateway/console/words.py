"""What an entry of a ledger, or a difference between two, says, in words for people."""

from protocols.ledger.entry import Entry, PeerRef

_KINDS = {
    "sent": "{from_} sent a message to {to}.",
    "received": "{owner} took a message of {from_}: it opened it, and its signature holds.",
    "refused": "{owner} refused bytes that {from_} sent it, for good: {code}; it could{not_} open them.",
    "receipt": "{owner} holds the answer of {to} to its message{why}.",
    "undelivered": "{owner} stopped trying to deliver a message to {to}: {code}. That says nothing about {to}.",
    "id_conflict": "{owner} was sent two different contents by {from_} under one id. That is evidence against {from_}.",
    "relayed": "{owner} says that it took a message of {from_} to pass on to {to}; it cannot read it.",
    "dispatched": "{owner}'s own system has the message of {from_}.",
    "opened": "Somebody at {owner} read {what} of a message from {from_} to {to}{purpose}.",
    "erased": "{owner} erased {what}{of}{ground}.",
    "key": "{owner} changed a key: {code}.",
    "directory": "{owner} follows version {version} of the directory from here on.",
    "peer-checkpoint": "{owner} holds a checkpoint of {peer}{size}.",
    "admin": "{owner}: {code}.",
    "ledger-opened": "{owner} opened this ledger{after}.",
    "ledger-closed": "{owner} closed this ledger.",
}
DIFFERENCES = {
    "arrival.unsent": "says that it got what the other never logged as sent",
    "arrival.content": "got another content, thread or key than the other logged as sent",
    "receipt.unfounded": "holds a receipt that does not stand in the other's ledger",
    "entry.past": "names an entry past the end of the other's ledger, which was cut, or taken out before",
    "receipt.code": "was told another outcome than the other logged",
    "receipt.twice": "logged two receipts for one message",
    "received.twice": "logged one message as received twice",
    "sent.unended": "sent this longer than a message lives before its ledger ends, and logged neither a receipt nor that it gave up",
    "sent.content": "logged two contents or numbers under one id",
    "tree.other": "was shown another tree of the other's ledger than the one that lies here: a second history",
    "undelivered.arrived": "gave up a message that the other has as received",
    "sequence.gap": "left a number out, or gave one twice: a message of this pair is missing or too many",
    "clock.skew": "sent this after the other had it, by more than two minutes: one of the clocks is wrong",
}
_OURS = ("sent", "receipt", "undelivered", "ledger-opened", "ledger-closed")  # `from` is the ledger's owner
_ADMIN = {
    "erasure.begun": "an epoch key of content is about to be destroyed; all others were wrapped anew",
    "approval.asked": "somebody asked for a second person",
    "approval.approved": "a second person approved",
    "approval.refused": "a second person refused",
    "approval.used": "what two people approved was done",
    "thread.unacknowledged": "a request was not acknowledged by its day",
    "thread.silent": "a request was not answered by its day",
}

_ASKED = {
    "approval": "what a second person was asked to approve",
    "record": "a shared record that two people had confirmed",
}


def sentence(entry: Entry | None, owner: str) -> str:
    """One sentence; it says what the entry states and nothing more (docs/protocol.md section 3)."""
    if entry is None:
        return "These bytes are no entry that this version can read."
    if entry.kind in _OURS and entry.sender not in (None, owner):
        return f"{owner} logged {entry.kind} in the name of {entry.sender}: no such entry belongs into its ledger."
    what, _, more = (entry.code or "").partition("/")
    if entry.kind == "opened" and what in _ASKED:
        return f"Somebody at {owner} read {_ASKED[what]}, for {more}."
    ground, _, until = more.partition("/")
    peer = entry.peer or PeerRef(origin="nobody")
    return _KINDS[entry.kind].format(
        owner=owner, from_=entry.sender, to=entry.recipient, code=_ADMIN.get(entry.code or "", entry.code),
        not_="" if entry.read else " not", what={"body": "the text", "content": "all"}.get(what, what),
        purpose=f" for {more}" if more else "",
        of=f" of a message from {entry.sender} to {entry.recipient}" if entry.sender and entry.recipient else "",
        ground=f", ground {ground}; backups still open it until {until}" if more else "",
        why=f": refused, {entry.code}" if entry.code else ", which is no refusal",
        version=entry.dir.version if entry.dir else "", peer=peer.origin, size=f" at size {peer.size}" if peer.size else "",
        after=f" after {peer.origin}" if entry.peer else "",
    )  # fmt: skip
