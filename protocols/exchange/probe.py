"""The answer to a probe: who answers whom, what it speaks, whether it can work (docs/protocol.md section 4, Probe)."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from protocols.directory import SUITE, MemberName, Time
from protocols.exchange.message import sign_message
from protocols.ports.crypto import Signer
from protocols.problems import ProblemError
from protocols.strict import dump_json, parse_object

PROBE_TYP = "tracewire-probe+jws"
PROBE_BYTES_MAX = 8 * 1024
PROTOCOL = 1
_Word = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9._-]{0,63}$")]


class ProbeAnswer(BaseModel):
    """What a member says of itself to another; `wrong` are the problem codes that keep it from its work."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, populate_by_name=True)

    v: int = PROTOCOL
    sender: Annotated[MemberName, Field(alias="from")]
    recipient: Annotated[MemberName, Field(alias="to")]
    at: Time
    dir: Annotated[int, Field(ge=1)]
    suite: _Word = SUITE
    types: Annotated[list[_Word], Field(max_length=64)]
    wrong: Annotated[list[_Word], Field(max_length=16)]


def sign_probe(answer: ProbeAnswer, signer: Signer) -> bytes:
    """The answer as JWS compact, signed with the member's request key."""
    return sign_message(dump_json(answer.model_dump(by_alias=True)), signer, PROBE_TYP)


def parse_probe(data: bytes) -> ProbeAnswer:
    """The payload of a probe's JWS; `schema.invalid` or `json.*` for another version's."""
    try:
        return ProbeAnswer.model_validate(parse_object(data, bytes_max=PROBE_BYTES_MAX), by_name=False)
    except ValidationError:
        raise ProblemError("schema.invalid", "the peer answers a probe in another form") from None
