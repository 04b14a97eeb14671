"""The trace request that follows from a recovery report, as far as the report knows it; a person completes and sends it."""

from datetime import date
from typing import Any
from uuid import UUID

from gateway.services.read import Read
from gateway.services.terms import withheld
from protocols.messages import validate_body, validate_model
from protocols.messages.recovery import RecoveryReport, draft_request, recovery_completeness
from protocols.ports.access import Caller
from protocols.problems import ProblemError


async def drafted(read: Read, thread: UUID, caller: Caller, *, member: str, today: date) -> dict[str, Any]:
    """The body, the pointers that it still misses, and how much of the nine steps is done in percent.

    `thread.not_found` where the thread is no recovery report's, `handling.forbidden` where it may not be read,
    `auth.purpose`. That it is read is noted.
    """
    contents = await read.contents(thread)
    for content in contents:
        message = content.message
        if message.type != "recovery.report":
            continue
        said = [each.message for each in contents]
        if why := withheld(said, message, member=member, today=today, purpose=caller.purpose):
            raise ProblemError("handling.forbidden", why)
        await read.look([content], caller, "draft")
        report = validate_model(RecoveryReport, message.body, message.type)
        body, missing = draft_request(report), []
        try:
            validate_body("trace.request", body)
        except ProblemError as problem:
            missing = [fault.pointer for fault in problem.errors]
        return {"body": body, "missing": missing, "steps_done_percent": recovery_completeness(report)}
    raise ProblemError("thread.not_found", "no recovery report opened this thread")
