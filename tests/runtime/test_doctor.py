"""`tracewire doctor`: each fault is made true for a real node folder, and is found, explained, and mended as said."""

import asyncio
import json
import shutil
import socket
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from adapters.postgres.embedded import EmbeddedServer
from gateway.runtime.cli.doctor import Doctor, Machine
from gateway.runtime.cli.main import app
from gateway.runtime.settings import FILE, dump_settings
from gateway.runtime.world import SystemClock
from gateway.services.doctor import DISK_FREE_LOW_BYTES, DISK_FREE_MIN_BYTES, Step, clock
from keys.guard import FileGuard
from keys.tls import pin_of_pem, self_signed
from protocols.problems import ProblemError
from protocols.strict import b64u
from tests.federation import Clock, Federation, Node, wait_until
from tests.http.wire import listening

PLENTY = 1024**4


def machine(clock: SystemClock, free: int = PLENTY) -> Machine:
    return Machine(clock=clock, free=lambda node, settings: {"node": free})


def shifted(by: timedelta) -> Clock:
    clock = Clock()
    clock.ahead = by
    return clock


async def examined(node: Node, how: Machine | None = None) -> list[Step]:
    """What the doctor says of a node's folder; every finding says why and how to mend it."""
    steps = await Doctor(node.folder, lambda: node.fed.secret, how or machine(node.fed.clock)).examine()
    for step in steps:
        if step.state in ("wrong", "warning"):
            assert step.what, step
            assert step.why, step
            assert step.fix, step
    return steps


def wrong(steps: list[Step]) -> dict[str, Step]:
    return {step.step: step for step in steps if step.state == "wrong"}


def change(node: Node, **settings: Any) -> None:
    node.settings = node.settings.model_copy(update=settings)
    (node.folder / FILE).write_text(dump_settings(node.settings))


def run(*tokens: object) -> int:
    """The exit code of a command in this process."""
    try:
        return int(app([str(token) for token in tokens]) or 0)
    except SystemExit as end:
        return int(end.code or 0)


async def grown(fed: Federation) -> tuple[Node, Node]:
    """Two running nodes that have exchanged a message; the guard of the first remembers all of it."""
    a, b = await fed.nodes("a", "b")
    await a.becomes(await a.trace(b), "delivered")

    async def remembered() -> bool:
        mark = FileGuard(a.folder / "keys").read(a.origin)
        return mark is not None and mark.size == await a.count("entry")

    await wait_until(remembered)
    return a, b


def files_of(folder: Path) -> dict[Path, bytes]:
    return {path: sha256(path.read_bytes()).digest() for path in folder.rglob("*") if path.is_file()}


async def test_a_healthy_node_is_said_to_be_so_and_nothing_is_changed(fed: Federation) -> None:
    a, _ = await grown(fed)
    before, size = files_of(a.folder), await a.count("entry")
    steps = await examined(a)
    assert wrong(steps) == {}
    assert {step.step for step in steps if step.state == "ok"} == {
        "key files", "disk", "keys", "directory", "listing", "numbers", "content", "database", "schema", "ledger", "peer testnet/b", "clock",
    }  # fmt: skip
    assert files_of(a.folder) == before
    assert await a.count("entry") == size
    await a.stop()
    assert wrong(await examined(a)) == {}, "a node that does not run is examined as well"


async def test_a_clock_behind_our_own_ledger_is_found(fed: Federation) -> None:
    a, _ = await grown(fed)
    found = wrong(await examined(a, machine(shifted(timedelta(minutes=-30)))))
    assert "30 min behind the newest entry" in found["clock"].what
    assert "timedatectl" in found["clock"].fix


async def test_a_clock_that_others_contradict_is_found(fed: Federation) -> None:
    a, _ = await grown(fed)
    found = wrong(await examined(a, machine(shifted(timedelta(minutes=10)))))
    assert "10 min ahead of that of testnet/b" in found["clock"].what
    assert found["peer testnet/b"].what.startswith("clock: ")


def test_a_peer_whose_clock_is_wrong_is_not_our_fault() -> None:
    step = clock(timedelta(), {"x": timedelta(), "y": timedelta(seconds=1), "testnet/b": timedelta(minutes=10)})
    assert (step.state, "testnet/b" in step.what) == ("warning", True)
    assert clock(timedelta(), {"x": timedelta(minutes=9), "y": timedelta(minutes=10)}).state == "wrong"


async def test_a_clock_that_the_source_of_the_directory_contradicts_is_found(fed: Federation) -> None:
    (a,) = await fed.nodes("a")
    source = web.Application()
    source.router.add_static("/", fed.repository)
    async with listening(source) as port:
        change(a, directory=f"http://127.0.0.1:{port}")
        assert wrong(await examined(a)) == {}
        found = wrong(await examined(a, machine(shifted(timedelta(minutes=-10)))))["clock"]
        assert "behind" in found.what
        found = wrong(await examined(a, machine(shifted(timedelta(minutes=10)))))["clock"]
        assert "10 min ahead of that of the directory's source" in found.what


async def test_an_unreachable_peer_is_found_at_its_step(fed: Federation) -> None:
    a, b = await grown(fed)
    await b.stop()
    found = wrong(await examined(a))
    assert set(found) == {"peer testnet/b"}
    assert found["peer testnet/b"].what == "tcp: Connection refused"


async def test_an_expired_directory_is_found_before_and_after_the_grace(fed: Federation) -> None:
    a, _ = await grown(fed)
    for ahead, title in ((timedelta(hours=25), "Directory has expired"), (timedelta(days=9), "Directory is stale")):
        found = wrong(await examined(a, machine(shifted(ahead))))["directory"]
        assert found.what.startswith(title)
        assert str(fed.repository) in found.fix


async def test_a_source_that_is_away_is_a_warning_while_the_directory_is_in_force(fed: Federation) -> None:
    a, _ = await grown(fed)
    change(a, directory="http://127.0.0.1:9")
    steps = await examined(a)
    (found,) = [step for step in steps if step.step == "directory"]
    assert (found.state, found.what) == ("warning", "Directory cannot be fetched")
    assert wrong(steps) == {}


@pytest.mark.parametrize("name", ["node.key", "guard.json", "epochs/1.key"])
async def test_a_key_file_open_to_others_is_found_and_mended_as_said(fed: Federation, name: str) -> None:
    a, _ = await grown(fed)
    path = a.folder / "keys" / name
    path.chmod(0o644)
    found = wrong(await examined(a))
    assert f"{path} is open to others" in found["key files"].what
    assert f"chmod 600 {path}" in found["key files"].fix
    path.chmod(0o600)
    assert wrong(await examined(a)) == {}


async def test_a_key_folder_that_others_can_write_is_found(fed: Federation) -> None:
    a, _ = await grown(fed)
    (a.folder / "keys" / "epochs").chmod(0o777)
    assert "chmod 700" in wrong(await examined(a))["key files"].fix


async def test_a_wrong_secret_is_found_and_the_rest_is_examined_all_the_same(fed: Federation) -> None:
    a, _ = await grown(fed)

    def none() -> Any:
        raise ProblemError("key.store", "no passphrase: give --key-file or --passphrase-file")

    steps = await Doctor(a.folder, none, machine(fed.clock)).examine()
    assert set(wrong(steps)) == {"keys"}
    assert {"database", "schema", "directory", "clock"} <= {step.step for step in steps if step.state == "ok"}


async def test_a_database_behind_the_guard_is_found_with_both_sizes(fed: Federation) -> None:
    a, b = await grown(fed)
    await a.stop()
    older, size = await a.copy_database(), await a.count("entry")
    await a.start()
    await a.becomes(await a.trace(b), "delivered")
    newest = await a.count("entry")
    await a.stop()
    a.use_database(older)
    change(a, database=a.dsn)
    found = wrong(await examined(a))
    assert found["ledger"].what == "the database is behind the guard"
    assert f"holds {size} entries, the guard remembers {newest}" in found["ledger"].fix
    assert f"tracewire ledger recover {a.folder}" in found["ledger"].fix
    assert set(found) == {"ledger"}


async def test_a_guard_that_is_gone_is_found_with_the_way_to_recover(fed: Federation) -> None:
    a, _ = await grown(fed)
    await a.stop()
    (a.folder / "keys" / "guard.json").unlink()
    found = wrong(await examined(a))["ledger"]
    assert found.what == "there is no fork guard beside the keys"
    assert found.fix.endswith(f"tracewire ledger recover {a.folder}")


async def test_a_disk_that_fills_is_a_warning_and_then_wrong(fed: Federation) -> None:
    a, _ = await grown(fed)
    for free, state in (
        (DISK_FREE_LOW_BYTES, "ok"),
        (DISK_FREE_LOW_BYTES - 1, "warning"),
        (DISK_FREE_MIN_BYTES, "warning"),
        (DISK_FREE_MIN_BYTES - 1, "wrong"),
    ):
        steps = await examined(a, machine(fed.clock, free))
        assert [step.state for step in steps if step.step == "disk"] == [state, "not tried"]


async def certified(fed: Federation, node: Node) -> None:
    """Gives a stopped node a TLS key, and lists it."""
    for name in ("listed", "other"):
        key, certificate = self_signed("127.0.0.1", fed.clock.now())
        for ending, data in (("key", key), ("pem", certificate)):
            path = node.folder / f"{name}.{ending}"
            path.write_bytes(data)
            path.chmod(0o600)
    node.url = node.url.replace("http:", "https:")
    node.pins = [b64u(pin_of_pem((node.folder / "listed.pem").read_bytes()))]
    await fed.publish(node.ask())
    change(node, exchange_url=node.url, tls_certificate=Path("listed.pem"), tls_key=Path("listed.key"))


async def test_a_certificate_that_the_directory_does_not_list_is_found(fed: Federation) -> None:
    a, _ = await grown(fed)
    await a.stop()
    await certified(fed, a)
    assert "certificate" not in wrong(await examined(a))
    change(a, tls_certificate=Path("other.pem"), tls_key=Path("other.key"))
    found = wrong(await examined(a))["certificate"]
    assert "not one that the directory lists" in found.what
    assert f"tracewire member request {a.folder}" in found.fix
    change(a, tls_key=Path("listed.key"))
    assert "certificate and key do not load" in " ".join(step.what for step in await examined(a))


async def test_another_address_than_the_listed_one_is_found(fed: Federation) -> None:
    a, _ = await grown(fed)
    change(a, exchange_url="http://127.0.0.1:1")
    assert "exchange_url" in wrong(await examined(a))["listing"].what


async def test_a_member_that_is_not_listed_is_told_what_to_send(fed: Federation) -> None:
    a, _ = await grown(fed)
    change(a, member="testnet/z")
    assert "tracewire member request" in wrong(await examined(a))["listing"].fix


async def test_a_suspended_member_is_told_whom_to_ask(fed: Federation) -> None:
    a, _ = await grown(fed)
    fed.set_status(a, "suspended")
    await fed.publish()
    assert "not active" in wrong(await examined(a))["listing"].what


async def test_a_database_that_was_not_migrated_is_found_and_mended_as_said(
    fed: Federation, postgres: EmbeddedServer, database_name: str
) -> None:
    a, _ = await grown(fed)
    await a.stop()
    owner, own = await postgres.create_database(database_name)
    change(a, database=own)
    found = wrong(await examined(a))
    assert "schema is not there" in found["schema"].what
    assert found["schema"].fix.startswith(f"tracewire migrate {a.folder}")
    assert await asyncio.to_thread(run, "migrate", a.folder, "--owner-dsn", owner, "--json") == 0
    assert "schema" not in wrong(await examined(a))


@pytest.mark.parametrize(("version", "fix"), [("0001", "tracewire migrate"), ("9999", "newer")])
async def test_a_schema_of_another_version_is_found(fed: Federation, version: str, fix: str) -> None:
    a, _ = await grown(fed)
    await a.stop()
    a.use_database(await a.copy_database())
    change(a, database=a.dsn)
    await a.sql("UPDATE alembic_version SET version_num = $1", version)
    found = wrong(await examined(a))["schema"]
    assert f"version {version}" in found.what
    assert fix in found.fix


async def test_a_database_that_is_away_is_found_and_its_password_is_not_shown(fed: Federation, tmp_path: Path) -> None:
    a, _ = await grown(fed)
    change(a, database=f"postgresql://app:hunter2hunter2@/db?host={tmp_path}")
    steps = await examined(a)
    assert {"database", "settings"} == set(wrong(steps))
    assert "chmod 600" in wrong(steps)["settings"].fix
    assert "hunter2" not in str(steps)


async def test_a_database_folder_that_is_gone_is_found_and_not_made_anew(fed: Federation) -> None:
    a, _ = await grown(fed)
    change(a, database="")
    assert "not there" in wrong(await examined(a))["database"].what
    assert not (a.folder / a.settings.postgres_folder).exists()


async def test_a_node_that_never_had_a_directory_is_told_what_the_source_says(fed: Federation) -> None:
    a, _ = await grown(fed)
    shutil.rmtree(a.folder / "directory")
    change(a, directory="http://127.0.0.1:9")
    found = wrong(await examined(a))["directory"]
    assert found.what == "No directory was accepted yet; Directory cannot be fetched"
    assert found.fix == "Check the source's address and network. The source is http://127.0.0.1:9."


async def test_what_a_running_node_says_of_itself_is_passed_on(fed: Federation) -> None:
    a, _ = await grown(fed)
    at = socket.create_server(("127.0.0.1", int(a.settings.operations_bind.rpartition(":")[2])))
    async with listening(a.parts.listeners["operations"], at=at):

        async def node() -> list[tuple[str, str]]:
            steps = await asyncio.to_thread(asyncio.run, examined(a))
            return [(step.state, step.what) for step in steps if step.step == "node"]

        assert await node() == [("ok", "runs, and is ready")]
        a.parts.linking.alarms["testnet/b/2026.1"] = "checkpoint.unlinked"
        a.parts.health["database"] = "store.busy"
        assert await node() == [
            ("wrong", "the node runs and is not ready: database"),
            ("warning", "it warns of ledger testnet/b/2026.1"),
        ]


async def test_a_folder_that_is_no_node_is_one_finding(tmp_path: Path, fed: Federation) -> None:
    steps = await Doctor(tmp_path / "none", lambda: fed.secret, machine(fed.clock)).examine()
    assert [(step.step, step.state) for step in steps] == [("settings", "wrong")]


async def test_the_command_prints_every_finding_with_why_and_fix_and_ends_with_3(
    fed: Federation, capsys: pytest.CaptureFixture[str]
) -> None:
    a, _ = await grown(fed)
    key = a.folder / "keys" / "node.key"
    secret = ("--key-file", fed.folder / "secret")
    assert await asyncio.to_thread(run, "doctor", a.folder, *secret) == 0
    assert capsys.readouterr().out.startswith("ok ")
    key.chmod(0o644)
    assert await asyncio.to_thread(run, "doctor", a.folder, *secret) == 3
    out = capsys.readouterr().out
    assert out.startswith(f"WRONG     key files  {key} is open to others\n          why: Whoever")
    assert f"fix: Run `chmod 600 {key}`" in out
    assert await asyncio.to_thread(run, "doctor", a.folder, *secret, "--json") == 3
    found = json.loads(capsys.readouterr().out)
    assert found["ok"] is False
    assert {"step", "state", "what", "why", "fix"} == set(found["steps"][0])
