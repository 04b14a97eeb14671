"""The command `tracewire`: help that teaches, exit codes, JSON for programs, nothing overwritten."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import cyclopts
import pytest

from adapters.directory.request import parse_request
from adapters.postgres.embedded import EmbeddedServer
from gateway.runtime.cli.main import app
from gateway.runtime.settings import FILE, dump_settings, load_settings, make_settings
from keys.keystore import KeyStore
from keys.secret import Secret
from keys.tls import pin_of_pem, self_signed
from protocols.strict import b64u
from tests.federation import new_database

ROOT = Path(__file__).parents[2]


def run(*tokens: object) -> int:
    """The exit code of a command in this process."""
    try:
        return int(app([str(token) for token in tokens]) or 0)
    except SystemExit as end:
        return int(end.code or 0)


def commands(group: cyclopts.App, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name in group:
        if not name.startswith("-"):
            yield (*path, name)
            yield from commands(group[name], (*path, name))


def test_every_command_explains_itself_and_each_of_its_options(capsys: pytest.CaptureFixture[str]) -> None:
    found = list(commands(app))
    assert {path[0] for path in found} == {
        "init", "migrate", "run", "submit", "show", "token", "ledger", "audit", "verify", "directory", "member", "registry",
        "chain", "report", "approve", "erase", "check", "client", "demo", "evidence", "doctor", "probe", "outbox", "aside", "courier", "attachments", "keys", "batch",
    }  # fmt: skip
    assert {("directory", name) for name in ("init", "admit", "witnesses", "publish", "serve")} <= set(found)
    for path in found:
        assert run(*path, "--help") == 0, path
        shown = capsys.readouterr().out
        assert f"Usage: tracewire {' '.join(path)}" in shown, path
        assert "Parameters" in shown or "Commands" in shown, path


def test_help_loads_no_heavy_module() -> None:
    heavy = ["aiohttp", "alembic", "asyncpg", "cryptography", "jwt", "pydantic", "sqlalchemy", "sqlmodel", "tuf"]
    program = f"""
import sys
from gateway.runtime.cli.main import app
try:
    app(["--help"])
except SystemExit:
    pass
print([name for name in {heavy} if name in sys.modules], file=sys.stderr)
"""
    found = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stderr.strip() == "[]"
    assert "Exit codes" in found.stdout


@pytest.mark.parametrize(
    "tokens",
    [
        ["nonsense"], ["init"], ["init", "node", "--bogus"], ["ledger", "nonsense"], ["ledger", "verify"],
        ["submit", "node"], ["directory", "admit", "x", "y", "--role", "king"],
    ],
)  # fmt: skip
def test_wrong_usage_is_exit_code_2(tokens: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*tokens) == 2
    assert capsys.readouterr().out == ""


def problem(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """The one JSON document on stderr; stdout is empty."""
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    found: dict[str, Any] = json.loads(err)
    return found


NODE_COMMANDS = [
    ["migrate", "NODE"], ["submit", "NODE", "FILE", "--to", "net/b"], ["show", "NODE"], ["show", "NODE", "thread"],
    ["batch", "NODE", "FILE"], ["token", "NODE"], ["ledger", "export", "NODE", "OUT"], ["ledger", "repair", "NODE"], ["audit", "reconcile", "NODE", "OUT"], ["ledger", "proof", "NODE", "0", "OUT"],
    ["member", "request", "NODE", "--key-file", "KEY"], ["registry", "import", "NODE", "FILE"], ["client", "list", "NODE"],
    ["probe", "NODE", "net/b"], ["outbox", "list", "NODE"], ["outbox", "retry", "NODE"],
    ["aside", "list", "NODE"], ["aside", "replay", "NODE", "019aab2f-3c7b-7d10-8f6a-2b1c3d4e5f60", "--key-file", "KEY"],
    ["keys", "list", "NODE", "--key-file", "KEY"], ["keys", "rotate", "NODE", "seal", "--key-file", "KEY"],
    ["keys", "revoke", "NODE", "kid", "--key-file", "KEY"], ["courier", "export", "NODE", "net/b", "DIR", "--key-file", "KEY"], ["courier", "import", "NODE", "DIR", "--key-file", "KEY"],
    ["outbox", "drop", "NODE", "019aab2f-3c7b-7d10-8f6a-2b1c3d4e5f60", "--yes", "--key-file", "KEY"],
    ["client", "add", "NODE", "c", "--actor", "a", "--scope", "trace:read"], ["client", "revoke", "NODE", "c"],
    ["approve", "NODE"], ["report", "NODE", "--year", "2026"], ["attachments", "NODE", "thread", "DIR"], ["chain", "NODE", "thread"],
]  # fmt: skip


def _here(tokens: list[str], folder: Path) -> list[str]:
    (folder / "FILE").write_text("{}")
    return [str(folder / token) if token in ("NODE", "FILE", "OUT", "KEY") else token for token in tokens]


@pytest.mark.parametrize("tokens", NODE_COMMANDS, ids=" ".join)
def test_a_problem_is_exit_code_1_and_one_document(
    tokens: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*_here(tokens, tmp_path), "--json") == 1
    found = problem(capsys)
    assert found["code"] in ("config.invalid", "key.store")
    assert found["fix"]


def _node(folder: Path, database: str) -> Path:
    node = folder / "NODE"
    node.mkdir()
    settings = make_settings({
        "member": "net/a", "name": "A", "country": "DE", "directory": "x", "exchange_url": "http://127.0.0.1:1",
        "agency_bind": "127.0.0.1:1", "database": database,
    }, "test")  # fmt: skip
    (node / FILE).write_text(dump_settings(settings))
    return node


@pytest.mark.parametrize(
    "tokens",
    [
        each
        for each in NODE_COMMANDS
        if each[0] in ("client", "registry", "ledger") or each[:2] in (["outbox", "list"], ["outbox", "retry"])
    ],
    ids=" ".join,
)
def test_a_database_that_is_away_is_a_problem_with_a_way_out(
    tokens: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _node(tmp_path, f"postgresql://app@/db?host={tmp_path}")
    here = _here(tokens, tmp_path)
    (tmp_path / "FILE").write_text("ref,serial,make\n")
    assert run(*here, "--json") == 1
    found = problem(capsys)
    assert (found["code"], found["errors"][0]["fix"][:16]) == ("store.busy", "Start the server")


def test_a_node_that_does_not_answer_is_a_problem_with_a_way_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from keys.files import replace
    from keys.tokens import new_client_key

    node = _node(tmp_path, "x")
    (node / "clients").mkdir(mode=0o700)
    replace(node / "clients" / "local.pem", new_client_key()[0])
    assert run("show", node, "--json") == 1
    assert "tracewire run" in problem(capsys)["detail"]


def test_a_check_that_fails_is_exit_code_3(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Secret.make_key_file(tmp_path / "secret")
    keys = KeyStore.create(tmp_path / "keys", Secret.key_file(tmp_path / "secret"))
    keys.add("ledger", origin="net/a/2026.1")
    vkeys = keys.note_signer("net/a/2026.1").vkeys
    ledger = tmp_path / "ledger"
    ledger.mkdir()
    (ledger / "vkeys").write_text("\n".join(vkeys))
    (ledger / "checkpoint").write_text("net/a/2026.1\n0\nAAAA\n")
    assert run("ledger", "verify", ledger, "--json") == 3
    out = capsys.readouterr().out
    assert json.loads(out)["ok"] is False
    (tmp_path / "proof").write_text("no proof")
    assert run("verify", tmp_path / "proof", "--vkey", vkeys[0], "--vkey", vkeys[1]) == 3
    assert capsys.readouterr().out.startswith("WRONG ")


# ---- init

INIT = ["--name", "A", "--country", "DE", "--directory", "x", "--exchange-url", "http://127.0.0.1:1"]


def _init(folder: Path, *more: str) -> int:
    (folder / "root.json").write_text("{}")
    return run(
        "init", folder / "NODE", "--member", "net/a", *INIT, "--root", folder / "root.json",
        "--key-file", folder / "secret", "--json", *more,
    )  # fmt: skip


def test_init_never_overwrites_a_node(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    node = _node(tmp_path, "x")
    before = {path: path.read_bytes() for path in node.rglob("*")}
    assert _init(tmp_path) == 1
    assert "nothing was changed" in problem(capsys)["detail"]
    assert {path: path.read_bytes() for path in node.rglob("*")} == before
    assert not (tmp_path / "secret").exists()


@pytest.mark.parametrize(
    "more",
    [
        ["--set", "bogus=1"], ["--set", "agency_bind=here"], ["--set", "agency_bind=0.0.0.0:1"],
        ["--set", "country=Germany"], ["--set", "exchange_url=http://node.example"], ["--set", "registry"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_init_refuses_wrong_settings_before_it_makes_anything(
    more: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _init(tmp_path, *more) == 1
    assert problem(capsys)["code"] == "config.invalid"
    assert not (tmp_path / "NODE").exists()


def test_an_init_that_fails_in_the_database_leaves_nothing_and_is_tried_again(
    tmp_path: Path, postgres: EmbeddedServer, database_name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    owner, own = asyncio.run(postgres.create_database(database_name))
    (tmp_path / "NODE").mkdir()
    (tmp_path / "NODE" / "notes").write_text("mine")
    away = owner.replace(f"/{database_name}", "/nobody")
    assert away != owner
    for code, more in (("config.invalid", []), ("config.invalid", ["here"]), ("store.busy", [away])):
        assert _init(tmp_path, "--database", own, *(["--owner-dsn", *more] if more else [])) == 1
        assert problem(capsys)["code"] == code
        assert [path.name for path in (tmp_path / "NODE").iterdir()] == ["notes"]
    assert _init(tmp_path, "--owner-dsn", owner, "--database", own) == 0


def test_init_makes_a_whole_node_over_a_database_by_dsn(
    tmp_path: Path, postgres: EmbeddedServer, database_name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    owner, own = asyncio.run(postgres.create_database(database_name))
    name = 'The "Agency"'
    assert _init(tmp_path, "--owner-dsn", owner, "--database", own, "--set", f"name={name}") == 0
    out, err = capsys.readouterr()
    assert (json.loads(out)["member"], err) == ("net/a", "")
    node = tmp_path / "NODE"
    assert load_settings(node).name == name
    assert (tmp_path / "secret").stat().st_mode & 0o777 == 0o600
    assert (node / "clients" / "local.pem").stat().st_mode & 0o777 == 0o600
    assert owner not in (node / FILE).read_text(), "the owner's DSN is not kept"
    assert run("migrate", node, "--owner-dsn", owner, "--json") == 0
    assert run("client", "add", node, "case-system", "--actor", "A", "--scope", "trace:read", "--json") == 0
    assert run("client", "list", node, "--json") == 0
    documents = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [each["client"] for each in documents[-1]["clients"]] == ["case-system", "local"]
    assert run("client", "add", node, "case-system", "--actor", "A", "--scope", "trace:read", "--json") == 1
    assert run("client", "add", node, "other", "--actor", "A", "--scope", "trace:reed") == 1
    assert "trace:read" in capsys.readouterr().err
    assert run("client", "revoke", node, "case-system", "--json") == 0
    assert run("client", "revoke", node, "case-system", "--json") == 1
    assert _init(tmp_path, "--owner-dsn", owner, "--database", own) == 1


# ---- registry import


@pytest.fixture(scope="module")
def node(postgres: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _node(tmp_path_factory.mktemp("registry"), asyncio.run(new_database(postgres))[1])


def _import(node: Path, data: bytes, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, Any]]:
    (node / "guns.csv").write_bytes(data)
    code = run("registry", "import", node, node / "guns.csv", "--json")
    out, err = capsys.readouterr()
    return code, json.loads(out or err)


HEADER = b"ref,serial,make,model,type,calibre,sold_on,dealer,country\n"


def test_guns_are_imported_and_a_later_row_of_the_same_ref_replaces(
    node: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = b'r1,ABC1234,Glock,17,pistol,9mm,2019-04,"A, B",AT\n'
    assert _import(node, HEADER + row, capsys)[1] == {"imported": 1, "size": 1}
    assert _import(node, b"\xef\xbb\xbf" + HEADER + row, capsys)[1] == {"imported": 1, "size": 1}


def test_10_000_rows_come_in_one_go(node: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = b"".join(b"big%d,S%07d,Glock,17,pistol,9mm,2019-04-01,Dealer,AT\n" % (n, n) for n in range(10_000))
    assert _import(node, HEADER + rows, capsys)[1]["imported"] == 10_000


BAD: dict[str, tuple[bytes, str]] = {
    "no ref": (b",ABC1,Glock,,,,,,", "/3/ref"),
    "a ref twice": (b"good,ABC1,Glock,,,,,,", "/3/ref"),
    "too few fields": (b"r,ABC1,Glock", "/3/"),
    "too many fields": (b"r,ABC1,Glock,,,,,,,extra", "/3/"),
    "a serial that became a number": (b"r,1.23E+11,Glock,,,,,,", "/3/serial"),
    "a model that became a date": (b"r,ABC1,Glock,2024-05-01 00:00:00,,,,,", "/3/model"),
    "a day of no calendar form": (b"r,ABC1,Glock,,,,01/04/2019,,", "/3/sold_on"),
    "a country by name": (b"r,ABC1,Glock,,,,,,Austria", "/3/country"),
    "a text without end": (b"r," + b"A" * 201 + b",Glock,,,,,,", "/3/serial"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_row_is_named_by_line_and_column_and_nothing_is_imported(
    node: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    row, pointer = BAD[name]
    size = _import(node, HEADER, capsys)[1]["size"]
    code, found = _import(node, HEADER + b"good,ABC1,Glock,,,,,,\n" + row + b"\n", capsys)
    assert (code, found["code"]) == (1, "registry.csv")
    assert pointer in [fault["pointer"] for fault in found["errors"]]
    assert b"1.23E" not in json.dumps(found).encode()
    assert run("registry", "import", node, node / "guns.csv") == 1
    assert f"{pointer}: " in capsys.readouterr().err, "people read it too"
    assert _import(node, HEADER, capsys)[1]["size"] == size


def test_at_most_50_faults_are_named(node: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = _import(node, HEADER + 200 * b",ABC1,Glock,,,,,,\n", capsys)[1]
    assert len(found["errors"]) == 50


@pytest.mark.parametrize(
    "data",
    [
        b"", b"ref,serial\n", b"ref,serial,make,make\n", b"ref,serial,make,colour\n", HEADER.decode().encode("utf-16"),
        HEADER + b"r,\xff,Glock,,,,,,\n", HEADER + b'r,"ABC1,Glock,,,,,,\n', HEADER + b"r,A\0B,Glock,,,,,,\n",
        b"ref;serial;make\n1;2;3\n",
    ],
)  # fmt: skip
def test_v02_v03_a_file_that_is_no_register_is_refused(
    node: Path, data: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    code, found = _import(node, data, capsys)
    assert (code, found["code"]) == (1, "registry.csv")


def test_v02_a_million_columns_are_refused(node: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _import(node, b"a," * 1_000_000 + b"\n", capsys)[1]["code"] == "registry.csv"


# ---- the record


def _member(folder: Path, facts: str) -> list[Any]:
    secret = folder / "secret"
    Secret.make_key_file(secret)
    node = _node(folder, "x")
    keys = KeyStore.create(node / "keys", Secret.key_file(secret))
    for use in ("record", "message", "seal", "request"):
        keys.add(use)
    keys.add("ledger", origin="net/a/2026.1")
    (node / "record.toml").write_text(facts)
    return ["member", "request", node, "--key-file", secret, "--json"]


def test_what_a_member_states_of_itself_stands_in_its_request(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    facts = 'competences = [{country = "AT", makes = ["Glock"]}]\n[contact]\noffice = "Desk"\nlanguages = ["de"]\n'
    assert run(*_member(tmp_path, facts)) == 0
    record = parse_request(Path(json.loads(capsys.readouterr().out)["request"]).read_bytes()).record
    assert record.contact is not None
    assert (record.contact.office, record.contact.languages) == ("Desk", ["de"])
    assert [(each.country, each.makes) for each in record.competences] == [("AT", ["Glock"])]


def test_the_key_of_the_next_certificate_is_pinned_beside_the_present_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command, pins = _member(tmp_path, ""), []
    for name in ("tls", "new"):
        private, certificate = self_signed("node", datetime.now(UTC))
        (command[2] / f"{name}.key").write_bytes(private)
        (command[2] / f"{name}.pem").write_bytes(certificate)
        pins.append(b64u(pin_of_pem(certificate)))
    settings = command[2] / "tracewire.toml"
    with settings.open("a") as file:
        file.write('tls_certificate = "tls.pem"\ntls_key = "tls.key"\n')
    settings.write_text(settings.read_text().replace("http://", "https://"))
    for given, expected in ((["--next-certificate", command[2] / "new.pem"], pins), ([], pins[:1])):
        assert run(*command, *given) == 0
        record = parse_request(Path(json.loads(capsys.readouterr().out)["request"]).read_bytes()).record
        assert record.endpoint is not None
        assert record.endpoint.spki == expected
    assert run(*command, "--next-certificate", settings) == 1
    assert problem(capsys)["code"] == "config.invalid"


@pytest.mark.parametrize(
    ("facts", "code", "pointer"),
    [
        ("competence = 1", "config.invalid", "/competence"),
        ("keys = 1", "config.invalid", "/keys"),
        ("= nonsense", "config.invalid", None),
        ('[contact]\noffice = "Desk"\nemail = "nobody"', "dir.invalid", "/contact/email"),
        ('[[competences]]\ncountry = "Austria"', "dir.invalid", "/competences/0/country"),
    ],
)
def test_what_it_states_wrongly_is_named(
    facts: str, code: str, pointer: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*_member(tmp_path, facts)) == 1
    found = problem(capsys)
    assert found["code"] == code
    assert pointer in (None, *(each["pointer"] for each in found.get("errors", ())))
