"""The node's settings: `tracewire.toml` in its folder; an unknown key is an error that names the nearest one."""

import difflib
import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from protocols.directory import MemberName, Text
from protocols.limits import EXPIRES_MAX_S
from protocols.problems import Fault, ProblemError

FILE = "tracewire.toml"
_REGISTRY = ("trace.request", "registry.record", "registry.withdrawal", "registry.search")
Address = Annotated[str, StringConstraints(pattern=r"^[^:\s]+:\d{1,5}$")]
_RETENTION_DAYS_MIN = EXPIRES_MAX_S // 86_400
LOOPBACK = re.compile(r"127\.\d+\.\d+\.\d+|localhost|\[::1\]")
_WEBHOOK = re.compile(rf"(https://[^\s/?#@]+|http://({LOOPBACK.pattern})(:\d+)?)([/?]\S*)?")


def key_path(node: Path, client: str) -> Path:
    """Where the node's folder keeps the private key of a client that `tracewire client add` made."""
    return node / "clients" / f"{client}.pem"


class Settings(BaseModel):
    """Everything an administrator may set; relative paths start at the node's folder."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    member: MemberName
    name: Text
    country: Annotated[str, StringConstraints(pattern=r"^[A-Z]{2}$")]
    directory: Annotated[str, Field(description="URL or folder of the directory")]
    exchange_url: Annotated[str, Field(description="where peers reach us, as the directory lists it")]
    agency_bind: Address = "127.0.0.1:8440"
    exchange_bind: Address = "127.0.0.1:8441"
    operations_bind: Address = "127.0.0.1:8442"
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    database: Annotated[str, Field(description="DSN of the application's role; empty: the embedded server")] = ""
    postgres_folder: Path = Path("postgres")
    postgres_database: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,50}$")] = "tracewire"
    registry: Annotated[bool, Field(description="answer from the own register, keep and search what members share")] = (
        False
    )
    reference: Annotated[
        bool, Field(description="answer what kind of weapon something is, from the reference table")
    ] = False
    attachment_mib: Annotated[
        int, Field(ge=1, le=2_048, description="the largest attachment, in MiB, that clients and peers may send")
    ] = 256
    backup_days: Annotated[
        int, Field(ge=1, le=3_650, description="how long backups of the keys are kept: erased content opens with them")
    ] = 35
    retention_days: Annotated[
        int, Field(ge=0, le=36_500, description="days after the last word in a thread when its content goes; 0: never")
    ] = 0
    webhook: Annotated[
        str,
        Field(
            description="URL of your own system that is told of each arrival that is not answered here; empty: it asks the feed"
        ),
    ] = ""
    retry_first_s: Annotated[float, Field(gt=0, le=60)] = 5.0

    @property
    def exchange_tls(self) -> bool:
        """Whether the exchange listener speaks TLS."""
        return self.exchange_url.startswith("https://")

    @property
    def attachment_bytes(self) -> int:
        """The largest attachment, before it is sealed."""
        return self.attachment_mib * 1024 * 1024

    @property
    def later_s(self) -> float:
        """After how long what is to be done with an arrived message, and failed, is tried again."""
        return 12 * self.retry_first_s

    @property
    def answers(self) -> list[str]:
        """The message types that the node handles by itself."""
        return [*(_REGISTRY if self.registry else ()), *(("reference.query",) if self.reference else ())]

    @property
    def audience(self) -> str:
        """What a client's assertion must name as `aud`: the token endpoint of this node."""
        return f"{self.member}/v1/token"


def _check(settings: Settings) -> None:
    if settings.exchange_tls and settings.member.startswith("demo/"):
        fix = "Make a node of another network: `tracewire init`."
        detail = "the network `demo` is for trying out on one machine: its keys lie open"
        raise ProblemError("config.invalid", detail, errors=[Fault("/member", "config.invalid", detail, fix)])
    if 0 < settings.retention_days < _RETENTION_DAYS_MIN:
        raise ProblemError(
            "config.invalid", f"retention_days: 0, or at least the {_RETENTION_DAYS_MIN} days that a message lives"
        )
    if not settings.exchange_tls:
        for address in (urlsplit(settings.exchange_url).hostname or "", settings.exchange_bind.rpartition(":")[0]):
            if not LOOPBACK.fullmatch(address):
                raise ProblemError("config.invalid", "plain HTTP is only for loopback: give an https exchange_url")
    elif settings.tls_certificate is None or settings.tls_key is None:
        raise ProblemError("config.invalid", "an https exchange_url needs tls_certificate and tls_key")
    if settings.webhook and not _WEBHOOK.fullmatch(settings.webhook):
        raise ProblemError("config.invalid", "webhook: an https URL without a password; plain HTTP only to loopback")
    if settings.agency_bind.rpartition(":")[0] not in ("127.0.0.1", "localhost", "[::1]") and not settings.tls_key:
        raise ProblemError("config.invalid", "agency_bind outside loopback needs tls_certificate and tls_key")


def load_settings(node: Path, given: Mapping[str, str] | None = None) -> Settings:
    """The settings of a node's folder, and what is `given` over them.

    `config.invalid` names every fault and, for an unknown key, the nearest one.
    """
    path = node / FILE
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ProblemError("config.invalid", f"{path} is not there: run `tracewire init` first") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise ProblemError("config.invalid", f"{path} cannot be read: {error}") from None
    return make_settings({**found, **(given or {})}, str(path))


def make_settings(found: Mapping[str, Any], place: str) -> Settings:
    """Settings of these values, which stand in `place`; faults as in `load_settings`."""
    try:
        settings = Settings.model_validate(found)
    except ValidationError as error:
        faults = [_fault(each["type"], [str(step) for step in each["loc"]], each["msg"]) for each in error.errors()]
        detail = f"{place}: " + "; ".join(f"{fault.pointer[1:]}: {fault.message}" for fault in faults)
        raise ProblemError("config.invalid", detail, errors=faults) from None
    _check(settings)
    return settings


def _fault(kind: str, place: list[str], message: str) -> Fault:
    pointer = "/" + "/".join(place)
    if kind != "extra_forbidden":
        return Fault(pointer, "config.invalid", message, f"Correct {place[-1]} in {FILE}.")
    near = difflib.get_close_matches(place[-1], Settings.model_fields, 1, 0.5)
    hint = f"the nearest is {near[0]}" if near else f"known are {', '.join(Settings.model_fields)}"
    return Fault(pointer, "config.invalid", f"an unknown key; {hint}", f"Rename or remove {place[-1]}.")


def dump_settings(settings: Settings) -> str:
    """The file's text: what differs from the defaults, and nothing else."""
    lines = ["# Settings of this node. `tracewire init --help` explains each."]
    for name, value in settings.model_dump(mode="json", exclude_defaults=True).items():
        shown = json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")  # also TOML, but for DEL
        lines.append(f"{name} = {shown}")
    return "\n".join(lines) + "\n"
