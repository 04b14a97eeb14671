"""Strict JSON, canonical base64url and times: every reading that two parsers could differ on is refused."""

import json
import time
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.limits import JSON_DEPTH_MAX
from protocols.strict import b64u, dump_json, format_time, parse_json, parse_object, parse_time, unb64u
from tests.protocols.forms import code_of, hostile, json_values, times, total

MANY = 10_000_000


def parsed(data: bytes) -> Any:
    return parse_json(data, bytes_max=MANY)


GOOD: list[tuple[bytes, Any]] = [
    (b"{}", {}),
    (b"[]", []),
    (b" \t\r\n[ ] ", []),
    (b"null", None),
    (b'""', ""),
    (b"0", 0),
    (b"-1", -1),
    (b"9007199254740991", 2**53 - 1),
    (b"-9007199254740991", 1 - 2**53),
    (b'"\\u0061\\/\\"\\\\\\b\\f\\n\\r\\t"', 'a/"\\\b\f\n\r\t'),
    (b'"\\ud83d\\ude00"', "\U0001f600"),
    ('"\U0001f600\u2028\x7f\ufeff"'.encode(), "\U0001f600\u2028\x7f\ufeff"),
    (b'{"a":{"a":1},"b":[{"a":2}]}', {"a": {"a": 1}, "b": [{"a": 2}]}),
    (b'{"":0}', {"": 0}),
    (b'"[[[[{{{{"', "[[[[{{{{"),
    (b'["\\"[", "]\\\\"]', ['"[', "]\\"]),
    (b"[" * 32 + b"]" * 32, json.loads("[" * 32 + "]" * 32)),
    (b"[" + b"[]," * 1000 + b"[]]", [[] for _ in range(1001)]),
]


@pytest.mark.parametrize(("data", "value"), GOOD, ids=[repr(data[:20]) for data, _ in GOOD])
def test_what_json_allows_and_nobody_reads_differently_is_taken(data: bytes, value: Any) -> None:
    assert parsed(data) == value


BAD: list[tuple[bytes, str]] = [
    # numbers
    *((text, "json.number") for text in (
        b"1.0", b"0.0", b"-0", b"-01", b"-0.0", b"1e0", b"1E2", b"1e400", b"-1e-400", b"9007199254740992", b"-9007199254740992",
        b"9007199254740993", b"1" + b"0" * 5000, b"-1" + b"0" * 5000, b"NaN", b"Infinity", b"-Infinity", b"[1.5]",
        b'{"a":1e1}',
    )),
    *((text, "json.invalid") for text in (
        b"+1", b"01", b".5", b"1.", b"-", b"0x1", b"1 2", b"--1", b"1_000", b"nan", b"inf", "\u0661".encode(),
    )),
    # structure
    *((text, "json.invalid") for text in (
        b"", b" ", b"{", b"}", b"[", b"]", b"][", b"[1", b"[1,]", b"[,1]", b"[1,,2]", b"[1 2]", b"{]", b"[}", b'{"a"}',
        b'{"a":}', b'{"a":1,}', b'{,"a":1}', b'{"a" 1}', b"{a:1}", b"{'a':1}", b"{1:1}", b"{null:1}", b'{"a":1}x',
        b"{}{}", b"[]]", b"[[]", b"{}\x0c", "[]\u00a0".encode(), b"[] // c", b"[] /* c */", b"# c\n[]", b"True", b"nul",
        b"truefalse", b"undefined", b"[" * 32, b'"a', b'"', b'"\\"', b'"\\', b'[["', b"'a'",
    )),
    # strings
    *((text, "json.invalid") for text in (
        b'"\n"', b'"\t"', b'"\x1f"', b'"\\x41"', b'"\\u12"', b'"\\u12G4"', b'"\\u 123"', b'"\\a"', b'"\\U0041"',
        b'"\\u-123"', b'"\\u+123"', b'"\\u0x41"',
    )),
    *((text, "json.encoding") for text in (
        b'"\\u0000"', b'{"\\u0000":1}', b'["a", {"b": "\\u0000"}]', b'"\\ud800"', b'"\\udc00"', b'"\\ude00\\ud83d"',
        b'"\\ud800\\u0041"', b'"\\ud800\\ud800\\udc00"', b'{"\\udfff":1}',
        b'"\0"', b"[]\0", b"\0",
    )),
    # encodings
    *((text, "json.encoding") for text in (
        b"\xef\xbb\xbf{}", "{}".encode("utf-16"), "{}".encode("utf-16-le"), "{}".encode("utf-16-be"),
        "{}".encode("utf-32"), b'"\xff"', b'"\xc0\xaf"', b'"\xe0\x80\xaf"', b'"\xf0\x80\x80\xaf"', b'"\xc0\x80"',
        b'"\xed\xa0\x80"', b'"\xed\xb0\x80"', b'"\xf4\x90\x80\x80"', b'"\xe2\x82"', b'"\x80"', b'"\xfc\x83\xbf\xbf\xbf\xbf"',
        b'"\xe9"',
    )),
    # members
    *((text, "json.duplicate") for text in (
        b'{"a":1,"a":1}', b'{"a":1,"b":2,"a":3}', b'{"a":1,"\\u0061":2}', b'[{"b":{"a":1,"a":2}}]',
        b'{"alg":"none","alg":"Ed25519"}', b'{"":1,"":1}',
    )),
    # depth
    *((text, "json.depth") for text in (
        b"[" * 33 + b"]" * 33, b'{"a":' * 33 + b"1" + b"}" * 33, b"[" * 100_000 + b"]" * 100_000, b"[" * 100_000,
        b'{"a":' * 100_000, (b'[{"a":' * 17) + b"1" + b"}]" * 17,
    )),
]  # fmt: skip


@pytest.mark.parametrize(("data", "code"), BAD, ids=[repr(data[:24]) for data, _ in BAD])
def test_what_two_parsers_could_read_differently_is_refused(data: bytes, code: str) -> None:
    assert code_of(parsed, data) == code


def test_a_document_is_refused_by_its_length_before_it_is_read() -> None:
    assert code_of(parse_json, b"[1]  ", bytes_max=4) == "json.too_large"
    assert parse_json(b"[1] ", bytes_max=4) == [1]


def test_members_are_compared_by_their_text_not_by_its_normal_form() -> None:
    assert len(parsed('{"\u00e9":1,"e\u0301":2}'.encode())) == 2


def test_only_an_object_is_an_object() -> None:
    for data in (b"[]", b'"{}"', b"1", b"null", b"true"):
        assert code_of(parse_object, data, bytes_max=99) == "json.invalid"


@pytest.mark.parametrize(
    "data",
    [b'"' + b'\\"' * 500_000, b'["' + b'\\\\"["' * 200_000, b"]" * 1_000_000, b"[" * 1_000_000, b"][" * 500_000,
     b'"' * 1_000_001],
    ids=["escapes in an unfinished string", "strings and brackets", "closing", "opening", "crossed", "quotes"],
)  # fmt: skip
def test_a_hostile_megabyte_costs_linear_time(data: bytes) -> None:
    start = time.process_time()
    assert total(parsed, data) is None
    assert time.process_time() - start < 3  # quadratic work took minutes


@given(json_values)
def test_what_we_write_is_read_back(value: Any) -> None:
    assert parsed(dump_json(value)) == value


@given(hostile(b'{"a":[1,-2,"x\\u00e9",{"b":null,"c":true}],"\\ud83d\\ude00":"[{"}'))
def test_any_bytes_are_a_value_that_plain_json_agrees_on_or_a_problem(data: bytes) -> None:
    value = total(parsed, data)
    if value is not None:
        assert value == json.loads(data)
        assert parsed(dump_json(value)) == value


@given(st.integers(0, 80), st.integers(0, 80))
def test_depth_is_counted_exactly(lists: int, objects: int) -> None:
    data = b"[" * lists + b'{"[":' * objects + b'"]"' + b"}" * objects + b"]" * lists
    if lists + objects > JSON_DEPTH_MAX:
        assert code_of(parsed, data) == "json.depth"
    else:
        assert total(parsed, data) is not None


@given(st.binary(max_size=70))
def test_base64url_is_read_back(data: bytes) -> None:
    assert unb64u(b64u(data)) == unb64u(b64u(data), length=len(data)) == data
    assert code_of(unb64u, b64u(data), length=len(data) + 1) == "b64.invalid"


@pytest.mark.parametrize(
    "text", ["YQ==", "YQ=", "YR", "YWF", "Y", "Y W", "YWE\n", "+/8", "a+b_", "Yé", "YQ.", None, 5, b"YQ", "YQ\0", "=", "\ud800"]
)  # fmt: skip
def test_text_that_is_not_canonical_base64url_is_refused(text: object) -> None:
    assert code_of(unb64u, text) == "b64.invalid"


@given(st.text(max_size=8))
def test_base64url_has_one_text_for_one_value(text: str) -> None:
    data = total(unb64u, text)
    assert data is None or b64u(data) == text


@given(times)
def test_times_are_read_back(at: datetime) -> None:
    assert parse_time(format_time(at)) == at
    assert len(format_time(at)) == 24


@pytest.mark.parametrize(
    "text",
    ["2026-11-22T10:00:00Z", "2026-11-22T10:00:00.0000Z", "2026-11-22T10:00:00.000+00:00", "2026-11-22 10:00:00.000Z",
     "2026-11-22t10:00:00.000z", "2026-02-30T10:00:00.000Z", "2026-11-22T24:00:00.000Z", "2026-11-22T10:60:00.000Z",
     "2026-11-22T10:00:60.000Z", "0000-01-01T00:00:00.000Z", "٢026-11-22T10:00:00.000Z", "2026-11-22T10:00:00,000Z",
     "2026-11-22T10:00:00.000Z\n", "", None, 1_764_000_000, True],
)  # fmt: skip
def test_a_time_in_any_other_form_is_refused(text: object) -> None:
    assert code_of(parse_time, text) == "schema.invalid"


def test_a_time_is_written_in_utc_with_milliseconds() -> None:
    assert format_time(datetime(2026, 11, 22, 10, 0, 0, 1_999, tzinfo=UTC)) == "2026-11-22T10:00:00.001Z"
