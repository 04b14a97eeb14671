"""Strict JSON and base64url: the parsers that run before anything else (docs/protocol.md section 1)."""

import json
import re
from binascii import Error as Base64Error
from binascii import a2b_base64, b2a_base64
from datetime import UTC, datetime
from typing import Any, NoReturn

from pydantic_core import to_json

from protocols.limits import JSON_DEPTH_MAX
from protocols.problems import ProblemError

_STRING = re.compile(
    rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL
)  # an unfinished one to the end, else time is quadratic
_TO_SQUARE = bytes.maketrans(b"{}", b"[]")
_NOT_BRACKETS = bytes(c for c in range(256) if c not in b"[]{}")
_INT_DIGITS_MAX = 16
_SAFE_INT = 2**53 - 1
_TIME = re.compile(r"\d{4}-\d\d-\d\dT(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d\.\d{3}Z", re.ASCII)


def _refuse_number(_: str) -> NoReturn:
    raise ProblemError("json.number", "only integers within 2^53 are allowed")


def _int(text: str) -> int:
    if len(text) > _INT_DIGITS_MAX + 1 or text == "-0" or abs(value := int(text)) > _SAFE_INT:
        _refuse_number(text)
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ProblemError("json.duplicate", "an object names a member twice")
    return value


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object, parse_float=_refuse_number, parse_constant=_refuse_number, parse_int=_int
)


def _check_depth(data: bytes) -> None:
    if data.count(b"[") + data.count(b"{") <= JSON_DEPTH_MAX:
        return  # too few brackets to nest too deeply, whatever is in strings
    brackets = _STRING.sub(b"", data).translate(_TO_SQUARE, _NOT_BRACKETS)
    inner = brackets
    for _ in range(JSON_DEPTH_MAX):  # one pass takes away exactly one level
        if not inner:
            return
        inner = inner.replace(b"[]", b"")
    if b"[]" in inner or inner.count(b"[") > JSON_DEPTH_MAX:  # else it does not close: the decoder says so
        raise ProblemError("json.depth", f"more than {JSON_DEPTH_MAX} levels")


def _check_text(value: Any) -> None:
    if isinstance(value, str):
        if "\0" in value or any(0xD800 <= ord(c) <= 0xDFFF for c in value):
            raise ProblemError("json.encoding", "U+0000 or a lone surrogate")
    elif isinstance(value, dict):
        for name, member in value.items():
            _check_text(name)
            _check_text(member)
    elif isinstance(value, list):
        for item in value:
            _check_text(item)


def parse_json(data: bytes, *, bytes_max: int) -> Any:
    """The value of strict JSON; ProblemError `json.*` for anything else."""
    if len(data) > bytes_max:
        raise ProblemError("json.too_large", f"more than {bytes_max} bytes")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise ProblemError("json.encoding", "not UTF-8") from None
    if text.startswith("\ufeff") or "\0" in text:
        raise ProblemError("json.encoding", "byte order mark or NUL")
    _check_depth(data)
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        where = f"not JSON at line {error.lineno}, column {error.colno}" if text.strip() else "nothing was sent"
        raise ProblemError("json.invalid", where) from None
    except RecursionError:
        raise ProblemError("json.invalid", "not JSON") from None
    if "\\u" in text:
        _check_text(value)
    return value


def parse_object(data: bytes, *, bytes_max: int) -> dict[str, Any]:
    """As `parse_json`, and the value must be an object."""
    value = parse_json(data, bytes_max=bytes_max)
    if not isinstance(value, dict):
        raise ProblemError("json.invalid", "not an object")
    return value


def dump_json(value: Any) -> bytes:
    """JSON bytes without white space, members in the order given, non-ASCII as UTF-8."""
    return to_json(value)


_TO_URL = bytes.maketrans(b"+/", b"-_")
_LAST = {
    1: frozenset("AQgw"),
    2: frozenset("AEIMQUYcgkosw048"),
}  # what may stand last after so many bytes: its spare bits are 0
_FROM_URL = bytes.maketrans(b"-_+/=", b"+/!!!")  # what base64url does not have becomes what base64 does not have


def b64u(data: bytes) -> str:
    """base64url without padding (RFC 4648 section 5)."""
    return b2a_base64(data, newline=False).translate(_TO_URL, b"=").decode("ascii")


def unb64u(text: object, *, length: int | None = None) -> bytes:
    """The bytes of canonical base64url text, of exactly `length` bytes where given; else `b64.invalid`."""
    if not isinstance(text, str):
        raise ProblemError("b64.invalid", "not a text")
    try:
        data = a2b_base64(text.encode("ascii").translate(_FROM_URL) + b"=" * (-len(text) % 4), strict_mode=True)
    except (Base64Error, UnicodeEncodeError):
        raise ProblemError("b64.invalid", "not base64url") from None
    tail = len(data) % 3  # spare bits can only hide in the last quantum
    if tail and text[-1] not in _LAST[tail]:
        raise ProblemError("b64.invalid", "not canonical")
    if length is not None and len(data) != length:
        raise ProblemError("b64.invalid", f"not {length} bytes")
    return data


def format_time(at: datetime) -> str:
    """RFC 3339 UTC with milliseconds."""
    utc = at if at.tzinfo is UTC else at.astimezone(UTC)
    return utc.isoformat(timespec="milliseconds")[:-6] + "Z"


def parse_time(text: object) -> datetime:
    """The time of RFC 3339 UTC text with exactly milliseconds; else `schema.invalid`."""
    if isinstance(text, str) and _TIME.fullmatch(text):
        try:
            return datetime.fromisoformat(text)
        except ValueError:
            pass
    raise ProblemError("schema.invalid", "not a time as 2026-11-22T10:00:00.000Z")
