"""The node's settings: every fault is named with its way out, and what is written is what is read."""

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.runtime.cli.keys import following
from gateway.runtime.compose import tls_context
from gateway.runtime.database import app_dsn, server_of
from gateway.runtime.settings import FILE, Settings, dump_settings, load_settings, make_settings
from keys.tls import self_signed
from protocols.problems import ProblemError

GIVEN = {
    "member": "net/a", "name": "Agency", "country": "DE", "directory": "https://directory.example",
    "exchange_url": "http://127.0.0.1:8441",
}  # fmt: skip


def problem(values: dict[str, object]) -> ProblemError:
    with pytest.raises(ProblemError) as caught:
        make_settings(values, "here")
    assert caught.value.code == "config.invalid"
    return caught.value


def test_nothing_goes_because_of_its_age_before_it_has_expired() -> None:
    assert "at least the 90 days" in problem(GIVEN | {"retention_days": 89}).detail
    assert [make_settings(GIVEN | {"retention_days": days}, "here").retention_days for days in (0, 90)] == [0, 90]


def test_settings_are_read_from_the_folder_of_the_node(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text(
        'member="net/a"\nname="A"\ncountry="DE"\ndirectory="x"\nexchange_url="http://localhost:1"'
    )
    found = load_settings(tmp_path)
    assert (found.member, found.agency_bind, found.registry) == ("net/a", "127.0.0.1:8440", False)


@pytest.mark.parametrize(
    ("key", "near"), [("agency_bnd", "agency_bind"), ("exchangeurl", "exchange_url"), ("registery", "registry")]
)
def test_an_unknown_key_is_refused_with_the_nearest_one(key: str, near: str) -> None:
    (fault,) = problem({**GIVEN, key: "x"}).errors
    assert fault.pointer == f"/{key}"
    assert f"the nearest is {near}" in fault.message


def test_a_key_near_to_nothing_is_refused_with_all_there_are() -> None:
    (fault,) = problem({**GIVEN, "zzzz": "x"}).errors
    assert all(name in fault.message for name in Settings.model_fields)


def test_every_fault_is_named_at_once() -> None:
    wrong = {**GIVEN, "country": "Germany", "agency_bind": "here", "retry_first_s": 0, "bogus": 1}
    del wrong["member"]
    found = problem(wrong)
    pointers = {fault.pointer for fault in found.errors}
    assert pointers == {"/member", "/country", "/agency_bind", "/retry_first_s", "/bogus"}
    assert all(pointer[1:] in found.detail for pointer in pointers)


@pytest.mark.parametrize("text", ["member = ", "\0", "member = 'a'\nmember = 'b'"])
def test_a_file_that_is_no_toml_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_text(text)
    with pytest.raises(ProblemError, match="cannot be read"):
        load_settings(tmp_path)


def test_a_folder_without_settings_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ProblemError, match="tracewire init"):
        load_settings(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"exchange_url": "http://node.example:8441"},
        {"exchange_url": "http://192.168.1.1:8441"},
        {"exchange_url": "http://127.0.0.1.evil.example:8441"},
        {"exchange_bind": "0.0.0.0:8441"},
        {"agency_bind": "0.0.0.0:8440"},
        {"exchange_url": "https://node.example:8441"},
        {"exchange_url": "https://node.example:8441", "tls_key": "key.pem"},
    ],
)
def test_plain_http_stays_on_loopback_and_https_has_its_certificate(change: dict[str, object]) -> None:
    assert "loopback" in problem(GIVEN | change).detail or "tls_certificate" in problem(GIVEN | change).detail


def test_tls_lets_every_listener_leave_loopback() -> None:
    tls = {"exchange_url": "https://node.example", "tls_certificate": "c.pem", "tls_key": "k.pem"}
    found = make_settings(GIVEN | tls | {"exchange_bind": "0.0.0.0:443", "agency_bind": "0.0.0.0:8440"}, "here")
    assert found.exchange_tls


def test_relative_paths_start_at_the_folder_of_the_node(tmp_path: Path) -> None:
    from datetime import UTC, datetime

    key, certificate = self_signed("localhost", datetime.now(UTC))
    (tmp_path / "k.pem").write_bytes(key)
    (tmp_path / "c.pem").write_bytes(certificate)
    tls = {
        "exchange_url": "https://localhost",
        "tls_certificate": "c.pem",
        "tls_key": "k.pem",
        "postgres_folder": "../pg",
    }
    found = make_settings(GIVEN | tls, "here")
    assert tls_context(tmp_path, found) is not None
    server = server_of(tmp_path / "node", found)
    assert server is not None
    assert server._folder == tmp_path / "pg"
    assert app_dsn(found, server) == server.dsn("tracewire", user="tracewire_app")


def test_a_dsn_takes_the_place_of_the_embedded_server(tmp_path: Path) -> None:
    found = make_settings(GIVEN | {"database": "postgresql://app@db/x"}, "here")
    assert (server_of(tmp_path, found), app_dsn(found, None)) == (None, "postgresql://app@db/x")


def test_only_what_differs_from_the_defaults_is_written() -> None:
    text = dump_settings(make_settings(GIVEN | {"registry": "true", "retry_first_s": "0.5"}, "here"))
    assert tomllib.loads(text) == GIVEN | {"registry": True, "retry_first_s": 0.5}


@given(st.text(min_size=1, max_size=40), st.text(max_size=40))
def test_what_is_written_is_what_is_read(name: str, directory: str) -> None:
    given = make_settings(GIVEN | {"name": name, "directory": directory}, "here")
    assert make_settings(tomllib.loads(dump_settings(given)), "here") == given


@pytest.mark.parametrize("name", ['The "Agency"', "back\\slash", "two\nlines", "\x7f\x00\x1f", "Größe 🔍"])
def test_names_that_toml_must_escape_survive(name: str) -> None:
    given = make_settings(GIVEN | {"name": name}, "here")
    assert tomllib.loads(dump_settings(given))["name"] == name


def test_attachments_of_up_to_two_gib_may_be_allowed() -> None:
    assert make_settings(GIVEN, "here").attachment_mib == 256
    allowed = [make_settings(GIVEN | {"attachment_mib": mib}, "here").attachment_bytes for mib in (1, 2_048)]
    assert allowed == [1 << 20, 1 << 31]
    for mib in (0, 2_049):
        assert [fault.pointer for fault in problem(GIVEN | {"attachment_mib": mib}).errors] == ["/attachment_mib"]


@pytest.mark.parametrize(
    ("used", "year", "next_"),
    [("2026.1", 2026, "2026.2"), ("2026.9", 2026, "2026.10"), ("2026.3", 2027, "2027.1"), ("2026.1", 2025, "2026.2")],
)
def test_a_ledger_is_followed_by_the_first_of_the_year_or_the_next_of_its_own(used: str, year: int, next_: str) -> None:
    assert following(f"net/a/{used}", year) == f"net/a/{next_}"
