"""A dry run of a trace request: how complete it is, to whom it should go, what is likely to come of it; nothing is sent or stored."""

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from functools import partial
from typing import Any

from gateway.services.policy import permit
from gateway.services.submit import EXPIRES_DEFAULT, check_expiry, check_other, current
from protocols.codes import UNKNOWN
from protocols.firearms.makes import make_key
from protocols.firearms.scoring import AUTOMATIC_MIN, KNOWN_MIN, Gun, known
from protocols.messages import (
    FAULTS_MAX,
    asked_gun,
    check_parts,
    completeness,
    validate_handling,
    validate_model,
    validate_part,
)
from protocols.messages.identify import look_at
from protocols.messages.shared import Weapon
from protocols.messages.trace import TraceRequest
from protocols.ports.directory import DirectorySource
from protocols.ports.world import Clock
from protocols.problems import Fault, ProblemError
from protocols.routing import WHY, Route, routes

_NONE: Mapping[str, Any] = {}


class Check:
    """Judges a request as its recipients will."""

    def __init__(self, *, member: str, directory: DirectorySource, clock: Clock) -> None:
        self._member, self._directory, self._clock = member, directory, clock

    def check(
        self,
        body: dict[str, Any],
        *,
        to: str | None = None,
        handling: dict[str, Any] | None = None,
        parts: Mapping[str, Any] = _NONE,
        expires: datetime | None = None,
    ) -> dict[str, Any]:
        """Faults, completeness by ITI 17, route, policy, likely outcome, and the one thing that would help most.

        A body of nothing but a weapon is judged as that: what else a request needs is no fault of it.
        `dir.stale` before the first directory; a body with faults is no problem but an answer.
        """
        request, faults = _validated(body)
        weapon = request.weapon if request else _weapon(body)
        if body.keys() == {"weapon"}:
            faults = tuple(fault for fault in faults if fault.pointer.startswith("/body/weapon"))
        faults += _faults(
            *((lambda: validate_handling(handling, "/handling"),) if handling is not None else ()),
            *(partial(validate_part, name, value, f"/parts/{name}") for name, value in parts.items()),
            lambda: check_parts("trace.request", body if request else {}, parts),
            lambda: check_expiry(expires or self._clock.now() + EXPIRES_DEFAULT, self._clock.now()),
            lambda: check_other(to or "", self._member),
        )
        found: dict[str, Any] = {"faults": [_shown(fault) for fault in faults]}
        gun = asked_gun(weapon) if weapon else None
        ways = self._routes(body)
        found["routes"] = [{"member": way.member, "rule": way.rule, "why": WHY[way.rule]} for way in ways]
        if request is not None:
            found["completeness"] = completeness(request)
        if weapon is not None and gun is not None:
            found["likely"], found["why"] = _likely(gun)
            known = weapon.model_dump(mode="json", exclude_none=True)
            serial = next((mark.text_raw for mark in weapon.serial_marks()), "")
            found["findings"] = [_shown(fault) for fault in look_at(known, serial=serial)]
        refused = self._refused(to)
        if refused:
            found["not_permitted"] = refused
        found["advice"] = next(_advice(weapon, faults, gun, ways, to, refused), "Send it.")
        return found

    def _routes(self, body: Mapping[str, Any]) -> list[Route]:
        weapon = body.get("weapon")
        if not isinstance(weapon, dict):
            return []
        make, country = (_code(weapon.get(name)) for name in ("make", "country_of_manufacture"))
        importer = weapon.get("importer")  # at most what a valid one may have: the rest is no name
        return routes(
            current(self._directory), self._member, make=make, importer=importer if isinstance(importer, str) else "",
            country=country if len(country) == 2 else "",
        )  # fmt: skip

    def _refused(self, to: str | None) -> str:
        """Why the directory does not let us ask this member; empty where it may be asked, or is not named."""
        try:
            if to is not None:
                permit(current(self._directory), type_="trace.request", sender=self._member, recipient=to)
        except ProblemError as problem:
            return f"{problem.code}: {problem.detail}"
        return ""


def _validated(body: Mapping[str, Any]) -> tuple[TraceRequest | None, tuple[Fault, ...]]:
    try:
        return validate_model(TraceRequest, body, "trace.request", "/body"), ()
    except ProblemError as problem:
        return None, problem.errors


def _weapon(body: Mapping[str, Any]) -> Weapon | None:
    """The weapon of a body that is not valid as a whole, where it is valid itself."""
    try:
        return validate_model(Weapon, body.get("weapon"), "weapon")
    except ProblemError:
        return None


def _faults(*checks: Callable[[], object]) -> tuple[Fault, ...]:
    """What each of them finds wrong, at most 20 in all."""
    found: list[Fault] = []
    for check in checks:
        try:
            check()
        except ProblemError as problem:
            found += problem.errors or [Fault("", problem.code, problem.detail, problem.kind.fix)]
        if len(found) >= FAULTS_MAX:
            break
    return tuple(found[:FAULTS_MAX])


def _code(pair: Any) -> str:
    """The make key or country of a pair that need not be valid: its code, else its words."""
    if not isinstance(pair, dict):
        return ""
    code, raw = pair.get("code"), pair.get("raw")
    if isinstance(code, str) and code != UNKNOWN:
        return code
    return make_key(raw) if isinstance(raw, str) else ""


def _shown(fault: Fault) -> dict[str, str]:
    return {"pointer": fault.pointer, "code": fault.code, "message": fault.message, "fix": fault.fix}


def _likely(gun: Gun) -> tuple[str, str]:
    """AUTOMATIC, PERSON or NOTHING, as the rule of docs/domain.md section 3 has it, and why."""
    steps = (
        (not (gun.serial_k1 or gun.pattern or gun.alternatives),
         "NOTHING", "there is no serial to look for; the maker can still say what the weapon is"),
        (known(gun) < KNOWN_MIN,
         "NOTHING", f"fewer than {KNOWN_MIN} characters are known: no register gives candidates for so little"),
        (not gun.serial_k1, "PERSON", "the serial is not whole, so a person chooses among candidates"),
        (gun.loose, "PERSON", "the serial stands on a part that can be changed: a person judges whether it is this weapon's"),
        (not gun.make, "PERSON", "without a make no register answers by itself"),
        (len(gun.serial_k1) < AUTOMATIC_MIN, "PERSON", f"a serial under {AUTOMATIC_MIN} characters is shared by many weapons"),
        (True, "AUTOMATIC", "a register answers by itself if exactly one record has this serial and make"),
    )  # fmt: skip
    return next((likely, why) for holds, likely, why in steps if holds)


def _advice(
    weapon: Weapon | None,
    faults: tuple[Fault, ...],
    gun: Gun | None,
    ways: list[Route],
    to: str | None,
    refused: str,
) -> Iterator[str]:
    """What would make the request succeed, the most needed first, in a sentence each."""
    for fault in faults:
        yield f"Correct {fault.pointer}: {fault.message}. {fault.fix}"
    if weapon is None or gun is None:
        return
    if not (gun.serial_k1 or gun.pattern or gun.alternatives):
        yield "Have the serial restored or look for it on other components, and send what can be read."
    if known(gun) < KNOWN_MIN:
        yield f"Read at least {KNOWN_MIN} characters of the serial: try another restoration, light or component."
    if not gun.make:
        yield "Name the make: read maker's name, logo and proof marks, or ask a reference service what the weapon is."
    if refused:
        yield f"Ask another member: {refused}."
    if ways and to is not None and to not in [way.member for way in ways]:
        yield f"Ask {ways[0].member} instead: {WHY[ways[0].rule]}."
    if not ways and to is None:
        yield "State the country of manufacture or the importer: no member's record names this weapon as it is."
    if UNKNOWN in (weapon.calibre.code, weapon.type.code):
        yield "State type and calibre: they tell two weapons of one serial and make apart."
