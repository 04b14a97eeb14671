"""An authority and two members as processes of their own: traced, killed, stopped, and searched for what must not leak."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from adapters.directory.request import parse_request
from adapters.postgres.embedded import EmbeddedServer
from gateway.runtime.cli.main import app
from gateway.runtime.client import AgencyClient
from gateway.services.committed import log_name
from protocols.ledger.entry import Entry, parse_entry
from protocols.ledger.note import VerifierKey
from protocols.problems import ProblemError
from tests.federation import HANDLING, _free_port, new_database, trace_request
from tests.keys.test_cose import verified as receipted
from tests.runtime.test_serving import serving

ROOT = Path(__file__).parents[2]
WAIT_S = 25.0
PASSPHRASE = "correct canary battery 77"
SERIAL, PERSON, ADDRESS = "CANARY77X1", "Canaria Persona77", "7 Canaria77 Street"
REGISTER = "ref,serial,make,model,type,calibre,sold_on,dealer,country\n{rows}"

Json = dict[str, Any]


def until(condition: Callable[[], Any], wait_s: float = WAIT_S) -> Any:
    """The first true value of the condition; fails after `wait_s`."""
    end = time.monotonic() + wait_s
    while not (found := condition()):
        assert time.monotonic() < end, "what was waited for did not happen"
        time.sleep(0.05)
    return found


def get(url: str) -> tuple[int, bytes]:
    """Status and body of a GET; 0 where nobody listens."""
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()
    except OSError:
        return 0, b""


def start(log: Path, *tokens: object) -> subprocess.Popen[bytes]:
    """The command as a process; its log is appended to."""
    program = "from gateway.runtime.cli.main import main; main()"
    with log.open("ab") as stderr:
        return subprocess.Popen(
            [sys.executable, "-c", program, *map(str, tokens)], cwd=ROOT, stdout=subprocess.PIPE, stderr=stderr
        )


@dataclass
class Commands:
    """Runs commands in this process and keeps all that they said."""

    said: list[str] = field(default_factory=list)

    def __call__(self, *tokens: object, code: int = 0) -> Json:
        """The one JSON document of a command that ends in this exit code."""
        program = [str(token) for token in (*tokens, "--json")]
        out, err = self._capture(program, code)
        lines = (out or err).splitlines()
        assert len(lines) == 1, (out, err)
        found: Json = json.loads(lines[0])
        return found

    def _capture(self, program: list[str], code: int) -> tuple[str, str]:
        import contextlib
        import io

        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                ended = app(program) or 0
            except SystemExit as end:
                ended = end.code or 0
        self.said += [out.getvalue(), err.getvalue()]
        assert ended == code, (program, out.getvalue(), err.getvalue())
        return out.getvalue(), err.getvalue()


@dataclass
class Member:
    """One member's node."""

    folder: Path
    name: str
    server: EmbeddedServer
    database: str
    secret: tuple[str, str]
    ports: dict[str, int]
    process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        return self.folder.with_suffix(".log")

    def lines(self) -> list[Json]:
        """The log so far."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def start(self) -> None:
        self.process = start(self.log, "run", self.folder, *self.secret)

    def ready(self) -> bool:
        return self.ask("readyz")[0] == 200 and get(f"http://127.0.0.1:{self.ports['agency']}/v1")[0] == 200

    def ask(self, path: str) -> tuple[int, bytes]:
        return get(f"http://127.0.0.1:{self.ports['operations']}/{path}")

    def end(self, number: signal.Signals) -> int:
        """The exit code after a signal."""
        assert self.process is not None
        self.process.send_signal(number)
        code = self.process.wait(WAIT_S)
        assert self.process.stdout is not None
        assert self.process.stdout.read() == b"", "a node's stdout stays empty"
        self.process.stdout.close()
        self.process = None
        return code

    def rows(self, sql: str) -> list[Any]:
        async def fetch() -> list[Any]:
            connection = await asyncpg.connect(self.server.dsn(self.database))
            try:
                return await connection.fetch(sql)
            finally:
                await connection.close()

        return asyncio.run(fetch())

    def entries(self) -> list[Entry]:
        return [parse_entry(row["data"]) for row in self.rows("SELECT data FROM entry ORDER BY index")]


@dataclass
class World:
    """The network and what was seen while it was made."""

    folder: Path
    run: Commands
    server: EmbeddedServer
    a: Member
    b: Member
    authority: subprocess.Popen[bytes]
    waiting: Json = field(default_factory=dict)

    def submit(self, serial: str, **more: Any) -> Json:
        path = self.folder / "request.json"
        path.write_text(json.dumps({"body": trace_request(serial), "handling": HANDLING, **more}))
        return self.run("submit", self.a.folder, path, "--to", self.b.name)

    def becomes(self, asked: Json, state: str) -> Json:
        """The asker's thread once it is in a state."""
        found: Json = until(
            lambda: (shown := self.run("show", self.a.folder, asked["thread"]))["state"] == state and shown
        )
        return found


def _member(folder: Path, short: str, run: Commands, server: EmbeddedServer, url: str) -> Member:
    database, dsn = asyncio.run(new_database(server))
    ports = {name: _free_port() for name in ("agency", "exchange", "operations")}
    if short == "a":
        (folder / "passphrase").write_text(PASSPHRASE + "\n")
        secret = ("--passphrase-file", str(folder / "passphrase"))
    else:
        secret = ("--key-file", str(folder / "key"))
    settings = [f"{name}_bind=127.0.0.1:{port}" for name, port in ports.items()]
    settings += ["retry_first_s=0.2", f"registry={str(short == 'b').lower()}"]
    run(
        "init", folder / short, "--member", f"demo/{short}", "--name", f"Agency {short}", "--country", "AT", "--root",
        folder / "auth" / "repository" / "1.root.json", "--directory", url, "--exchange-url",
        f"http://127.0.0.1:{ports['exchange']}", "--database", dsn,
        "--owner-dsn", server.dsn(database, user=f"{database}_owner"),
        *[token for each in settings for token in ("--set", each)], *secret,
    )  # fmt: skip
    return Member(folder / short, f"demo/{short}", server, database, secret, ports)


def _admit(folder: Path, member: Member, role: str, run: Commands) -> None:
    request, key = member.folder / "member-request.json", ("--key-file", folder / "key")
    run("member", "request", member.folder, *member.secret)
    challenge = run("directory", "admit", folder / "auth", request, "--role", role, *key)["challenge"]
    run("member", "request", member.folder, "--answer", challenge, *member.secret)
    assert run("directory", "admit", folder / "auth", request, "--role", role, *key)["state"] == "admitted"


@pytest.fixture(scope="module")
def world(postgres: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Both nodes run before the directory lists them; what they showed then is kept."""
    folder, run = tmp_path_factory.mktemp("world"), Commands()
    key = ("--key-file", folder / "key")
    run("directory", "init", folder / "auth", "--network", "demo", *key)
    authority = start(folder / "authority.log", "directory", "serve", folder / "auth", "--port", "0", *key, "--json")
    assert authority.stdout is not None
    members: list[Member] = []
    try:
        url = json.loads(authority.stdout.readline())["url"]
        for short in "ab":
            members.append(_member(folder, short, run, postgres, url))
        a, b = members
        for member in members:
            member.start()
        for member, role in ((a, "focal-point"), (b, "registry")):
            _admit(folder, member, role, run)
        world = World(folder, run, postgres, a, b, authority)
        until(lambda: a.ask("readyz")[0] and b.ask("readyz")[0] and b"waiting_for_directory" in a.log.read_bytes())
        world.waiting = {
            "readyz": a.ask("readyz"), "livez": a.ask("livez"), "log": a.lines(), "entries": a.entries(),
            "checkpoints": a.rows("SELECT size FROM checkpoint"),
            "agency": get(f"http://127.0.0.1:{a.ports['agency']}/"),
        }  # fmt: skip
        run("directory", "publish", folder / "auth", *key)
        until(lambda: a.ready() and b.ready())
        yield world
    finally:
        for member in members:
            if member.process is not None:
                member.end(signal.SIGTERM)
        authority.terminate()
        assert authority.wait(WAIT_S) == 0
        authority.stdout.close()


def test_a_node_that_no_directory_lists_waits_loudly_and_signs_nothing(world: World) -> None:
    status, body = world.waiting["readyz"]
    found = json.loads(body)
    assert (status, found["ready"], found["wrong"]["directory"]["code"]) == (503, False, "ledger.not_ready")
    assert world.waiting["livez"][0] == 200
    (why, *_) = [line["why"] for line in world.waiting["log"] if line["event"] == "waiting_for_directory"]
    assert "tracewire member request" in why
    assert (world.waiting["entries"], world.waiting["checkpoints"]) == ([], [])
    assert world.waiting["agency"] == (0, b""), "no client is served yet"


def test_it_starts_by_itself_once_it_is_listed(world: World) -> None:
    status, body = world.a.ask("readyz")
    found = json.loads(body)
    assert (status, found["ready"], found["wrong"]) == (200, True, {})
    assert world.a.entries()[0].kind == "ledger-opened"
    assert "node_started" in [line["event"] for line in world.a.lines()]


def test_operations_show_life_readiness_and_metrics_and_nothing_else(world: World) -> None:
    assert world.a.ask("livez") == (200, b'{"live": true}')
    status, metrics = world.a.ask("metrics")
    assert status == 200
    size = next(line for line in metrics.decode().splitlines() if line.startswith("tracewire_ledger_entries "))
    assert float(size.split(" ")[1]) == len(world.a.entries())
    assert b"tracewire_commit_queue_changes 0.0" in metrics
    status, body = world.a.ask("v1/traces")
    assert (status, json.loads(body)["code"]) == (404, "http.not_found")


def test_z13_the_listeners_share_no_route(world: World) -> None:
    for port, path in (
        ("exchange", "metrics"),
        ("exchange", "v1/traces"),
        ("agency", "metrics"),
        ("agency", "ledger/x/checkpoint"),
    ):
        assert get(f"http://127.0.0.1:{world.a.ports[port]}/{path}")[0] == 404


def test_a_request_is_delivered_answered_by_the_register_and_provable(world: World) -> None:
    rows = f"g1,{SERIAL},Glock,17,pistol,9mm,2019-04-01,Dealer One,AT\n"
    (world.folder / "guns.csv").write_text(REGISTER.format(rows=rows))
    assert world.run("registry", "import", world.b.folder, world.folder / "guns.csv")["imported"] == 1
    persons = {"persons": [{"role": {"code": "POSSESSOR", "raw": ""}, "name": PERSON, "address": ADDRESS}]}
    asked = world.submit(SERIAL, parts={"persons": persons})
    shown = world.becomes(asked, "ANSWERED")
    assert [(each["type"], each["state"]) for each in shown["messages"]][0] == ("trace.request", "delivered")
    answer = next(each for each in shown["messages"] if each["type"] == "trace.response")
    assert answer["body"]["result"]["code"] == "TRACED_TO_DEALER"
    assert shown["messages"][0]["parts"] == {"persons": persons}
    for member in (world.a, world.b):
        out = world.folder / f"out-{member.folder.name}"
        exported = world.run("ledger", "export", member.folder, out)
        verified = world.run("ledger", "verify", out)
        assert (verified["ok"], verified["size"]) == (True, exported["size"])
    vkeys = (world.folder / "out-a" / "vkeys").read_text().split()
    proof = world.folder / "sent.tlog-proof"
    place = shown["messages"][0]["ledger"]
    world.run("ledger", "proof", world.a.folder, place["index"], proof)
    checked = world.run("verify", proof, "--vkey", vkeys[0], "--vkey", vkeys[1])
    entry = parse_entry(checked["entry"].encode())
    assert (entry.kind, str(entry.id), checked["origin"]) == ("sent", asked["id"], place["origin"])


def test_the_live_ledgers_of_two_nodes_are_compared_and_shown_with_their_clients_tokens(world: World) -> None:
    urls = [
        f"http://127.0.0.1:{each.ports['agency']}/v1/ledger/{log_name(f'{each.name}/2026.1')}"
        for each in (world.a, world.b)
    ]
    nodes = ("--node", world.a.folder, "--node", world.b.folder)
    found = world.run("audit", "reconcile", *urls, *nodes)
    there = found["directions"][0]
    assert (found["ok"], there["sender"], there["recipient"]) == (True, world.a.name, world.b.name)
    assert there["sent"] == there["receipted"] > 0
    alone = _said("audit", "reconcile", *urls)
    assert (alone.returncode, "auth.missing" in alone.stderr, "--node" in alone.stderr) == (1, True, True), alone.stderr
    laptop = world.folder / "laptop"
    laptop.mkdir()
    shutil.copy(world.a.folder / "clients" / "local.pem", laptop / "client.pem")  # all that an auditor elsewhere has
    world.run("ledger", "export", world.a.folder, laptop / "out")
    trusted = [f"--vkey={key}" for key in (laptop / "out" / "vkeys").read_text().split()]
    elsewhere = ("--key", laptop / "client.pem", *trusted)
    assert world.run("audit", "fetch", urls[0], laptop / "live", *elsewhere)["origin"] == f"{world.a.name}/2026.1"
    assert world.run("ledger", "verify", laptop / "live", *trusted)["ok"]
    unnamed = _said("audit", "fetch", urls[0], laptop / "other", *elsewhere[:2])
    assert (unnamed.returncode, "config.invalid" in unnamed.stderr) == (1, True), (
        "no server is asked whose ledger it is"
    )
    for given in (("--node", world.a.folder), elsewhere):
        with serving(urls[0], *given) as url:
            status, page = get(f"{url}/ledgers/{log_name(f'{world.a.name}/2026.1')}")
            assert (status, f"{world.b.name}" in page.decode()) == (200, True)


def _said(*tokens: object) -> "subprocess.CompletedProcess[str]":
    command = [str(Path(sys.executable).with_name("tracewire")), *map(str, tokens)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_an_exported_ledger_with_one_changed_byte_is_exit_code_3(world: World) -> None:
    out = world.folder / "changed"
    world.run("ledger", "export", world.b.folder, out)
    bundle = next((out / "tile" / "entries").rglob("*.p/*"))
    data = bytearray(bundle.read_bytes())
    data[-3] ^= 1
    bundle.write_bytes(data)
    assert world.run("ledger", "verify", out, code=3)["ok"] is False
    other = world.run("ledger", "export", world.a.folder, out, code=1)
    assert other["code"] == "config.invalid", "another ledger's folder"


def test_clients_come_and_go_beside_a_running_node(world: World) -> None:
    node = world.a.folder
    world.run("client", "add", node, "case-system", "--actor", "inspector-7", "--scope", "trace:read")
    who = ("--client", "case-system", "--actor", "inspector-7")
    assert world.run("token", node, *who)["access_token"].count(".") == 2
    assert world.run("show", node, *who)["traces"]
    path = world.folder / "request.json"
    path.write_text(json.dumps(trace_request("SCOPE123")))
    assert world.run("submit", node, path, "--to", world.b.name, *who, code=1)["code"] == "auth.scope"
    assert world.run("token", node, "--client", "case-system", "--actor", "other", code=1)["code"] == "auth.invalid"
    world.run("client", "revoke", node, "case-system")
    assert world.run("token", node, *who, code=1)["code"] == "auth.invalid"


async def _many(node: Path, to: str, serials: list[str], at_half: Callable[[], None]) -> list[Json]:
    """Submits at once, calls `at_half` when half is accepted; what was accepted."""
    accepted: list[Json] = []

    async def one(agency: AgencyClient, serial: str) -> None:
        body = {"to": to, "body": trace_request(serial), "handling": HANDLING}
        try:
            accepted.append(await agency.post("/v1/traces", body))
        except ProblemError:
            return
        if len(accepted) == len(serials) // 2:
            at_half()

    async with AgencyClient.of_node(node) as agency:
        await agency.token()
        await asyncio.gather(*(one(agency, serial) for serial in serials))
    return accepted


def _count(member: Member, kind: str, ids: set[str]) -> list[int]:
    """How often each id stands in the ledger under a kind."""
    found = [str(entry.id) for entry in member.entries() if entry.kind == kind]
    return [found.count(each) for each in ids]


def test_records_are_shared_by_a_file_named_line_by_line_and_withdrawn_again(world: World) -> None:
    header = "record_ref,status,event_date,retention_until,serial,make,calibre"
    rows = ["s1,STOLEN,2024-05-01,2040-01-01,ABX12345,Glock,9mm", "s2,STOLEN,2024-05-01,2040-01-01,3.3E+54,Glock,9mm"]
    file = world.folder / "stolen.csv"
    file.write_text("\n".join([header, *rows, "s3,LOST,2024-05-01,2040-01-01,raspado,Glock,9mm\n"]))
    found = world.run("registry", "share", world.a.folder, file)
    assert {name: found[name] for name in ("stored", "unchanged", "refused")} == {
        "stored": 2,
        "unchanged": 0,
        "refused": 1,
    }
    assert [line["line"] for line in found["lines"]] == [3]
    assert world.run("registry", "withdraw", world.a.folder, found["imports"][0]) == {"withdrawn": 2}
    many = [rows[0].replace("s1", f"m{n}") for n in range(10_000)]
    file.write_text("\n".join([header, *many, 'end,"STOLEN']))
    assert world.run("registry", "share", world.a.folder, file, code=1)["code"] == "registry.csv"
    assert world.a.rows("SELECT FROM registry_record WHERE owner <> ''") == [], (
        "nothing of a file that cannot be read whole"
    )


def test_a_file_of_guns_is_looked_at_with_its_wrong_rows_among_the_findings(world: World) -> None:
    file = world.folder / "guns.csv"
    file.write_text(
        "serial,make,type\nABX12345,Glock,pistol\nABX12346\nraspado,Glock,pistol\nYWL058 (slide),Glock,pistol\n"
    )
    found = world.run("check", world.a.folder, file, "--to", "demo/nobody", code=3)
    assert found["likely"] == {"PERSON": 1, "AUTOMATIC": 1, "UNREAD": 1, "NOTHING": 1}
    assert found["lines"][0]["line"] == 3
    assert "not_permitted" in found
    assert all(line["advice"] for line in found["lines"])


def test_a_picture_travels_with_a_request_and_is_saved_there(world: World) -> None:
    picture, folder = world.folder / "slide left.jpg", world.folder / "saved"
    picture.write_bytes(os.urandom(3_000_000))
    request = world.folder / "pictured.json"
    request.write_text(json.dumps({"body": trace_request("PICTURE1"), "handling": HANDLING}))
    asked = world.run("submit", world.a.folder, request, "--to", world.b.name, "--attach", picture)
    world.becomes(asked, "ACKNOWLEDGED")
    (file,) = world.run("attachments", world.b.folder, asked["thread"], folder)["saved"]
    assert Path(file).name == "1-slide_left.jpg"
    assert Path(file).read_bytes() == picture.read_bytes()
    assert world.run("attachments", world.b.folder, asked["thread"], folder) == {"saved": []}
    part = Path(f"{file}.part")  # as a broken transfer leaves it
    Path(file).rename(part)
    os.truncate(part, 1_000_000)
    assert world.run("attachments", world.b.folder, asked["thread"], folder)["saved"] == [file]
    assert Path(file).read_bytes() == picture.read_bytes()
    world.run("submit", world.a.folder, request, "--to", world.b.name, "--attach", world.folder / "none", code=1)


def test_a_system_of_the_members_is_told_under_a_key_that_a_command_made(world: World) -> None:
    port, settings = _free_port(), world.a.folder / "tracewire.toml"
    before = settings.read_text()
    settings.write_text(f'{before}webhook = "http://127.0.0.1:{port}/"\n')
    world.a.end(signal.SIGTERM)
    unsigned = world.run("doctor", world.a.folder, *world.a.secret, code=3)
    assert any(
        step["step"] == "keys" and "keys rotate NODE webhook" in step.get("fix", "") for step in unsigned["steps"]
    )
    made = world.run("keys", "rotate", world.a.folder, "webhook", *world.a.secret)
    desk = subprocess.Popen(
        [sys.executable, ROOT / "docs" / "examples" / "webhook.py", str(port), made["public"]], stdout=subprocess.PIPE
    )
    try:
        assert desk.stdout is not None
        world.a.start()
        until(world.a.ready)
        asked = world.submit("TOLD0001")
        world.becomes(asked, "ACKNOWLEDGED")
        thread = ""
        while thread != asked["thread"]:  # earlier ones that nobody fetched come first
            name, thread = desk.stdout.readline().decode().split()
            assert name.rpartition("/")[0] == world.b.name
        until(lambda: _count(world.a, "dispatched", {name.rpartition("/")[2]}) == [1])
        assert [key["public"] for key in _webhook_keys(world)] == [made["public"]]
        following = world.run("keys", "revoke", world.a.folder, made["kid"], *world.a.secret)
        assert made["public"] != following["public"]
        assert [key["public"] for key in _webhook_keys(world)] == [following["public"]]
        _restart(world.a)  # else within a minute
        world.becomes(world.submit("TOLD0002"), "ACKNOWLEDGED")
        until(lambda: "status 401" in [line.get("error") for line in world.a.lines()])
    finally:
        desk.kill()
        desk.communicate()
        settings.write_text(before)
        _restart(world.a)


def _webhook_keys(world: World) -> list[Json]:
    found = world.run("keys", "list", world.a.folder, *world.a.secret)["keys"]
    return [key for key in found if key["use"] == "webhook"]


def test_a_running_node_has_its_ledger_cosigned_unasked(world: World) -> None:
    signed = until(lambda: world.a.rows("SELECT witness FROM cosignature"), 2 * WAIT_S)  # at 30 s
    assert {row["witness"] for row in signed} == {world.b.name}


def test_a_courier_carries_what_the_network_does_not(world: World) -> None:
    world.b.end(signal.SIGTERM)
    asked = world.submit("COURIER1")
    stick = world.folder / "stick"
    stick.mkdir()
    there = world.run("courier", "export", world.a.folder, world.b.name, stick, *world.a.secret)
    assert (there["messages"], there["receipts"]) == (1, 0)
    world.run("courier", "import", world.a.folder, there["bag"], *world.a.secret, code=1)
    (envelope,) = Path(there["bag"]).glob("data/parcels/*.jwe")
    good = envelope.read_bytes()
    envelope.write_bytes(good[:-1])
    found = world.run("courier", "import", world.b.folder, there["bag"], *world.b.secret, code=3)
    assert (found["parcels"], list(found["aside"])) == ({}, [envelope.relative_to(there["bag"]).as_posix()])
    envelope.write_bytes(good)
    for _ in range(2):
        found = world.run("courier", "import", world.b.folder, there["bag"], *world.b.secret)
        assert (found["parcels"], found["aside"]) == ({"received": 1}, {})
    back = world.run("courier", "export", world.b.folder, world.a.name, stick, *world.b.secret)
    found = world.run("courier", "import", world.a.folder, back["bag"], *world.a.secret)
    assert (found["receipts"], found["settled"]) == (1, 1)
    assert world.run("show", world.a.folder, asked["thread"])["state"] == "DELIVERED"
    world.b.start()
    until(world.b.ready)


def test_a_receiver_killed_in_the_midst_gets_everything_once(world: World) -> None:
    serials = [f"KILL{n:04}" for n in range(60)]
    accepted = asyncio.run(_many(world.a.folder, world.b.name, serials, lambda: world.b.end(signal.SIGKILL)))
    assert len(accepted) == len(serials), "the sender's clients do not notice"
    world.b.start()
    until(world.b.ready)
    ids = {each["id"] for each in accepted}
    until(lambda: not world.a.rows("SELECT 1 FROM outbox WHERE state = 'queued'"))
    assert _count(world.a, "sent", ids) == [1] * 60
    assert _count(world.a, "receipt", ids) == [1] * 60
    assert _count(world.b, "received", ids) == [1] * 60
    inbox = [str(row["id"]) for row in world.b.rows("SELECT id FROM inbox WHERE type = 'trace.request'")]
    assert sorted(each for each in inbox if each in ids) == sorted(ids)


def test_sigterm_ends_a_node_when_all_it_accepted_is_in_its_ledger(world: World) -> None:
    assert world.a.process is not None
    ending = world.a.process
    accepted = asyncio.run(_many(world.a.folder, world.b.name, [f"TERM{n:04}" for n in range(200)], ending.terminate))
    assert ending.wait(WAIT_S) == 0
    assert "node_stopping" in [line["event"] for line in world.a.lines()]
    assert len(accepted) >= 100
    assert _count(world.a, "sent", {each["id"] for each in accepted}) == [1] * len(accepted)
    assert ending.stdout is not None
    ending.stdout.close()
    world.a.start()
    until(world.a.ready)
    until(lambda: not world.a.rows("SELECT 1 FROM outbox WHERE state = 'queued'"))
    assert all(kind == 1 for kind in _count(world.b, "received", {each["id"] for each in accepted}))


def _in_force(world: World) -> None:
    """The member's newest request is admitted and published, and both nodes have it."""
    key = ("--key-file", world.folder / "key")
    request = world.a.folder / "member-request.json"
    asked = world.run("directory", "admit", world.folder / "auth", request, "--role", "focal-point", *key)
    if "challenge" in asked:
        world.run("member", "request", world.a.folder, "--answer", asked["challenge"], *world.a.secret)
        world.run("directory", "admit", world.folder / "auth", request, "--role", "focal-point", *key)
    world.run("directory", "publish", world.folder / "auth", *key)


def _restart(member: Member) -> None:
    member.end(signal.SIGTERM)
    member.start()
    until(member.ready)


def test_two_processes_over_one_database_share_the_work_and_one_may_be_killed(world: World) -> None:
    ports = {name: _free_port() for name in ("agency", "exchange", "operations")}
    settings = [token for name, port in ports.items() for token in ("--set", f"{name}_bind=127.0.0.1:{port}")]
    process = start(world.folder / "second.log", "run", world.a.folder, *settings, *world.a.secret)
    assert process.stdout is not None
    process.stdout.close()
    second = replace(world.a, ports=ports, process=process)
    until(second.ready)
    assert world.a.ready(), "both serve"
    before = max(row["seq"] for row in world.a.rows("SELECT coalesce(max(seq), 0) AS seq FROM event"))

    def kill() -> None:
        process.kill()
        process.wait()

    first = [f"BOTH{n:04}" for n in range(60)]
    accepted = asyncio.run(_of_both(world, second, first, kill))
    ids = {each["id"] for each in accepted}
    assert len(ids) >= 60, "what the living one was asked, and what the other had answered"
    until(lambda: not world.a.rows("SELECT 1 FROM outbox WHERE state = 'queued'"))
    for kind in ("sent", "receipt"):
        assert _count(world.a, kind, ids) == [1] * len(ids)
    assert _count(world.b, "received", ids) == [1] * len(ids)
    told = [
        row["message"] for row in world.a.rows(f"SELECT message FROM event WHERE seq > {before} AND kind = 'delivered'")
    ]
    assert len(told) == len(set(told)) >= len(ids)


async def _of_both(world: World, second: Member, serials: list[str], at_half: Callable[[], None]) -> list[Json]:
    """Half of the requests to each process; what was accepted."""
    url = f"http://127.0.0.1:{second.ports['agency']}"
    accepted: list[Json] = []

    async def one(agency: AgencyClient, serial: str) -> None:
        with contextlib.suppress(ProblemError):
            body = {"to": world.b.name, "body": trace_request(serial), "handling": HANDLING}
            accepted.append(await agency.post("/v1/traces", body))
            if len(accepted) == len(serials) // 2:
                at_half()

    async with AgencyClient.of_node(world.a.folder) as ours, AgencyClient.of_node(world.a.folder) as theirs:
        theirs.url = url
        await asyncio.gather(ours.token(), theirs.token())
        await asyncio.gather(
            *(one(agency, f"{serial}{n}") for serial in serials for n, agency in enumerate((ours, theirs)))
        )
    return accepted


def test_the_next_ledger_is_opened_under_load_and_the_former_is_closed(world: World) -> None:
    made = world.run("keys", "rotate", world.a.folder, "ledger", *world.a.secret)
    assert made["version"] > 1
    _in_force(world)
    serials = [f"LEDGER{n:03}" for n in range(60)]
    accepted = asyncio.run(_many(world.a.folder, world.b.name, serials, lambda: _restart(world.a)))
    assert len(accepted) == len(serials)
    ids = {each["id"] for each in accepted}
    until(lambda: not world.a.rows("SELECT 1 FROM outbox WHERE state = 'queued'"))
    assert _count(world.a, "receipt", ids) == [1] * len(ids)
    assert _count(world.b, "received", ids) == [1] * len(ids)
    heads = {row["origin"]: row["size"] for row in world.a.rows("SELECT origin, size FROM ledger_head")}
    former, following = sorted(heads)
    (last,) = world.a.rows(f"SELECT data FROM entry WHERE origin = '{former}' ORDER BY index DESC LIMIT 1")
    (first,) = world.a.rows(f"SELECT data FROM entry WHERE origin = '{following}' AND index = 0")
    closed, opened = parse_entry(last["data"]), parse_entry(first["data"])
    assert (closed.kind, opened.kind) == ("ledger-closed", "ledger-opened")
    assert opened.peer is not None
    assert (opened.peer.origin, opened.peer.size) == (former, heads[former])
    world.run("member", "request", world.a.folder, *world.a.secret)
    _in_force(world)
    _restart(world.a)
    _restart(world.b)
    world.becomes(world.submit("AFTERWARDS1"), "ACKNOWLEDGED")
    assert world.run("doctor", world.a.folder, *world.a.secret)["ok"]
    exported = world.folder / "ledger-after"
    assert world.run("ledger", "export", world.a.folder, exported)["origin"] == following
    assert world.run("ledger", "verify", exported)["ok"]
    proof, cose = world.folder / "closed.tlog-proof", world.folder / "closed.cose"
    index = heads[former] - 1
    world.run("ledger", "proof", world.a.folder, index, proof, f"--origin={former}")
    record = parse_request((world.a.folder / "member-request.json").read_bytes()).record
    (vkeys,) = [each.vkeys for each in record.ledgers if each.origin == former]
    checked = world.run("verify", proof, *(f"--vkey={key}" for key in vkeys))
    assert (checked["origin"], parse_entry(checked["entry"].encode()).kind) == (former, "ledger-closed")
    world.run("ledger", "receipt", world.a.folder, index, cose, f"--origin={former}", *world.a.secret)
    entry = cose.with_name("closed.cose.json").read_bytes()
    assert parse_entry(entry) == closed
    claims = receipted(cose.read_bytes(), entry, VerifierKey.parse(vkeys[0]).public)
    assert claims[2] == former


def _with_token(member: Member, token: str) -> int:
    url = f"http://127.0.0.1:{member.ports['agency']}/v1/traces"
    try:
        with urllib.request.urlopen(
            urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})
        ) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_keys_of_every_use_are_rotated_and_revoked_by_command(world: World) -> None:
    before = {key["use"]: key for key in world.run("keys", "list", world.a.folder, *world.a.secret)["keys"]}
    for use in ("message", "seal", "request"):
        world.run("keys", "rotate", world.a.folder, use, "--overlap-hours", "0", *world.a.secret)
        world.run("keys", "rotate", world.a.folder, use, *world.a.secret, code=1)
    _in_force(world)
    _restart(world.b)
    _restart(world.a)  # else it changes over within a minute
    world.becomes(world.submit("ROTATED1"), "ACKNOWLEDGED")
    found = world.run("keys", "list", world.a.folder, *world.a.secret)["keys"]
    for use in ("message", "seal", "request"):
        states = {key["state"]: key["kid"] for key in found if key["use"] == use}
        assert (set(states), states["old"]) == ({"current", "old"}, before[use]["kid"])
    with_old = world.run("token", world.a.folder)["access_token"]
    for use in ("witness", "record"):
        world.run("keys", "rotate", world.a.folder, use, *world.a.secret)
    world.run("keys", "rotate", world.a.folder, "token", *world.a.secret)
    _in_force(world)
    _restart(world.a)
    world.becomes(world.submit("ROTATED2"), "ACKNOWLEDGED")
    assert _with_token(world.a, with_old) == 200, "it is good for its five minutes"
    found = world.run("keys", "list", world.a.folder, *world.a.secret)["keys"]
    assert {key["state"] for key in found if key["use"] == "witness"} == {"current", "old"}
    former = next(key["kid"] for key in found if (key["use"], key["state"]) == ("token", "old"))
    world.run("keys", "revoke", world.a.folder, former, *world.a.secret)
    _restart(world.a)  # else within a minute
    assert _with_token(world.a, with_old) == 401
    stolen = next(key["kid"] for key in found if (key["use"], key["state"]) == ("message", "current"))
    world.run("keys", "revoke", world.a.folder, stolen, *world.a.secret)
    for nonsense in ("nonsense", "-yOjmsQ4TNzLq2oExUNPyZCGO1C"):  # one kid in 64 begins so
        world.run("keys", "revoke", world.a.folder, nonsense, *world.a.secret, code=1)
    for use in ("witness", "record", "ledger"):
        kid = next(key["kid"] for key in found if (key["use"], key["state"]) == (use, "current"))
        refused = world.run("keys", "revoke", world.a.folder, kid, *world.a.secret, code=1)
        assert f"tracewire keys rotate NODE {use}" in refused["errors"][0]["fix"]
    record = parse_request((world.a.folder / "member-request.json").read_bytes()).record
    (revoked,) = [key.revoked for key in record.keys.message if key.revoked]
    assert revoked.size == world.a.rows("SELECT max(size) AS n FROM ledger_head WHERE origin LIKE '%.2'")[0]["n"]
    _in_force(world)
    _restart(world.b)
    _restart(world.a)
    world.becomes(world.submit("REVOKED1"), "ACKNOWLEDGED")


async def _bad_input(node: Path, to: str) -> list[ProblemError]:
    """What the node says to requests with canaries in every wrong place."""
    good = {"to": to, "body": trace_request(SERIAL), "handling": HANDLING}
    wrong: list[Json] = [
        good | {"to": f"demo/{SERIAL.lower()}"},
        good | {SERIAL: PERSON},
        good | {"body": trace_request(SERIAL, **{PERSON: ADDRESS})},
        good | {"body": trace_request(SERIAL, priority=PERSON)},
        good | {"body": trace_request(SERIAL, circumstances={"recovered_on": PERSON})},
        good | {"handling": {"codes": [PERSON], "purpose": SERIAL}},
        good | {"parts": {"persons": {"persons": [{"name": PERSON, "address": 7, SERIAL: 1}]}}},
        good | {"parts": {PERSON: {"name": PERSON}}},
        good | {"due": PERSON, "expires": SERIAL},
    ]
    found = []
    async with AgencyClient.of_node(node) as agency:
        for body in wrong:
            with pytest.raises(ProblemError) as caught:
                await agency.post("/v1/traces", body)
            found.append(caught.value)
        for path in (f"/v1/traces/{SERIAL}", f"/v1/{SERIAL}", f"/v1/traces?state={PERSON}"):
            with pytest.raises(ProblemError) as caught:
                await agency.get(path)
            found.append(caught.value)
    return found


def _secrets(member: Member) -> set[str]:
    """Private key material of a member in the forms in which it might be printed."""
    pem = (member.folder / "clients" / "local.pem").read_text().splitlines()[1]
    found = {pem, PASSPHRASE}
    if member.secret[0] == "--key-file":
        raw = Path(member.secret[1]).read_bytes()
        found |= {raw.hex(), repr(raw)[2:-1]}
    return found


def test_g02_no_canary_is_in_any_log_metric_ledger_or_problem(world: World) -> None:
    shown = world.becomes(world.submit(SERIAL, parts={"persons": {"persons": [
        {"role": {"code": "POSSESSOR", "raw": ""}, "name": PERSON, "address": ADDRESS}]}}), "ANSWERED")  # fmt: skip
    assert SERIAL in json.dumps(shown), "the canary did go through"
    tokens = {world.run("token", member.folder)["access_token"] for member in (world.a, world.b)}
    problems = asyncio.run(_bad_input(world.a.folder, world.b.name))
    places = {f"problem {n} {p.code}": f"{p} {p.detail} {p.errors}".encode() for n, p in enumerate(problems)}
    assert all(p.code != "internal" for p in problems)
    bad = REGISTER.format(rows=f"r,{SERIAL},Glock,{'x' * 201},,,{PERSON},,{ADDRESS}\n,{SERIAL},,,,,,,\n")
    (world.folder / "bad.csv").write_text(bad)
    places["registry import"] = json.dumps(
        world.run("registry", "import", world.b.folder, world.folder / "bad.csv", code=1)
    ).encode()
    for member in (world.a, world.b):
        out = world.folder / f"canary-{member.folder.name}"
        world.run("ledger", "export", member.folder, out)
        places |= {str(path): path.read_bytes() for path in out.rglob("*") if path.is_file()}
        places |= {str(member.log): member.log.read_bytes(), f"{member.name} metrics": member.ask("metrics")[1]}
    tables = "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'"
    for (table,) in world.a.rows(tables):
        places[f"{world.a.name} database {table}"] = repr(world.a.rows(f'SELECT t::text FROM "{table}" t')).encode()
    places["authority"] = (world.folder / "authority.log").read_bytes()
    places["postgres"] = (world.server._folder / "server.log").read_bytes()
    canaries = {SERIAL, "Canaria", "CANARY77", *tokens, *_secrets(world.a), *_secrets(world.b)}
    canaries |= {token.split(".")[2] for token in tokens}
    assert len(places["postgres"]) > 0
    hits = [
        (place, n)
        for place, data in places.items()
        for n, each in enumerate(sorted(canaries))
        if each.lower().encode() in data.lower() or each.lower().encode().hex().encode() in data
    ]
    assert hits == []


def test_the_log_of_a_whole_run_is_json_lines_of_known_keys(world: World) -> None:
    for member in (world.a, world.b):
        lines = member.lines()
        assert lines
        assert not [line for line in lines if "dropped_keys" in line], "no code of ours logs what is not allowed"
        assert not [line for line in lines if line["level"] in ("error", "critical")]
        assert not [line for line in lines if line["event"] == "library_logged"]


def test_no_secret_stands_in_the_command_line_or_environment_of_a_process(world: World) -> None:
    for process in (world.a.process, world.b.process, world.authority):
        assert process is not None
        for name in ("cmdline", "environ"):
            try:
                data = Path(f"/proc/{process.pid}/{name}").read_bytes()
            except PermissionError:  # not even its own account may
                continue
            assert PASSPHRASE.encode() not in data
            assert (world.folder / "key").read_bytes() not in data
    assert os.environ.get("TRACEWIRE_PASSPHRASE") is None


def test_a_ledger_that_went_back_is_abandoned_by_the_authority_and_the_member_goes_on_in_the_next(world: World) -> None:
    world.becomes(world.submit("BEFORE001"), "ACKNOWLEDGED")
    origin = max(row["origin"] for row in world.a.rows("SELECT origin FROM ledger_head"))
    held = world.b.rows(
        f"SELECT size, note FROM peer_checkpoint WHERE origin = '{origin}' AND linked ORDER BY size DESC LIMIT 1"
    )
    world.a.end(signal.SIGTERM)
    (older,) = world.a.rows(
        f"SELECT size, encode(root, 'hex') AS root FROM checkpoint WHERE origin = '{origin}' AND size < {held[0]['size']} "
        "ORDER BY size DESC LIMIT 1"
    )
    for change in (
        f"DELETE FROM entry WHERE origin = '{origin}' AND index >= {older['size']}",
        f"DELETE FROM checkpoint WHERE origin = '{origin}' AND size > {older['size']}",
        f"UPDATE ledger_head SET size = {older['size']}, root = decode('{older['root']}', 'hex') WHERE origin = '{origin}'",
    ):
        world.a.rows(change)
    world.a.start()
    until(lambda: b"ledger.rollback" in world.a.ask("readyz")[1])
    note = world.folder / "last-good"
    note.write_bytes(held[0]["note"])
    key = ("--key-file", world.folder / "key")
    world.run("keys", "rotate", world.a.folder, "ledger", *world.a.secret)
    note.with_suffix(".forged").write_bytes(held[0]["note"].replace(f"\n{held[0]['size']}\n".encode(), b"\n1\n"))
    world.run("directory", "abandon", world.folder / "auth", note.with_suffix(".forged"), *key, code=1)
    said = world.run("directory", "abandon", world.folder / "auth", note, *key)
    assert (said["origin"], said["size"]) == (origin, held[0]["size"])
    _in_force(world)
    _restart(world.b)
    _restart(world.a)
    world.becomes(world.submit("AFTER0001"), "ACKNOWLEDGED")
    following = max(row["origin"] for row in world.a.rows("SELECT origin FROM ledger_head WHERE size > 0"))
    assert following > origin
    opened = world.a.rows(f"SELECT data FROM entry WHERE origin = '{following}' ORDER BY index LIMIT 1")[0]["data"]
    end = parse_entry(opened).peer
    assert (end and end.origin, end and end.size) == (origin, held[0]["size"]), "it goes on from the last good entry"
    last = world.a.rows(f"SELECT data FROM entry WHERE origin = '{origin}' ORDER BY index DESC LIMIT 1")[0]["data"]
    assert parse_entry(last).kind != "ledger-closed", "nothing more was signed there"
