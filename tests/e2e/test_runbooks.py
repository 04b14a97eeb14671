"""The runbooks' commands, run as they stand on a real node, its peer and a real PostgreSQL with a replica.

What stands for the machine is the test's own: `sudo` and `systemctl` are shell functions, and folders, ports and addresses
are replaced. Blocks `sh root` need a machine of their own: their syntax alone is checked; `sh drill` blocks make the trouble.
"""

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path
from threading import Event, Thread
from types import MappingProxyType

import pytest

from adapters.postgres.embedded import EmbeddedServer
from gateway.runtime.client import AgencyClient
from protocols.problems import ProblemError
from tests.federation import _free_port, trace_request

ROOT = Path(__file__).parents[2]
RUNBOOKS = ROOT / "docs" / "runbooks"
BIN = str(ROOT / ".venv/bin") if (ROOT / ".venv").exists() else ""
MACHINE = r"""
set -euo pipefail
sudo() {
  case "$1 $2" in
    "-u postgres")
      shift 2
      if [ "$(id -u)" = 0 ]; then setpriv --reuid="$PGUID" --regid="$PGGID" --clear-groups -- "$@"; else "$@"; fi;;
    "-u "*) shift 2; "$@";;
    *) "$@";;
  esac
}
chown() { :; }
systemctl() {
  [ "$1" = enable ] && shift
  case "${!#}" in
    tracewire@*)
      local node=${!#}; node=${node#tracewire@}
      if [ "$1" = stop ]; then
        kill "$(cat "$W/$node.pid")"
        while grep -qs '^State:.[^Z]' "/proc/$(cat "$W/$node.pid")/status"; do sleep 0.1; done
      else
        TRACEWIRE_PASSPHRASE_FILE=$W/etc/tracewire/police.passphrase setsid tracewire run "$NODE" < /dev/null > /dev/null 2>> "$W/$node.log" & echo $! > "$W/$node.pid"
      fi;;
    postgresql@primary) [ -e "$W/dead" ] || sudo -u postgres pg_ctl stop --silent --wait --mode=fast --pgdata="$PRIMARY/data";;
  esac
}
authority() (  # the peer is restarted rather than waited for: it looks for a new directory once a minute
  unset -f tracewire; export TRACEWIRE_KEY_FILE=$W/key; . "$1"
  if grep -q publish "$1"; then NODE=$W/registry; systemctl stop tracewire@registry; systemctl start tracewire@registry; fi
)
cd "$W"
"""
NETWORK = r"""
export TRACEWIRE_KEY_FILE=$W/key
tracewire directory init authority --network example
setsid tracewire directory serve authority --port $DIRECTORY < /dev/null > /dev/null 2> authority.log & echo $! > authority.pid
cp authority/repository/1.root.json root.json
mkdir registry
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -days 30 -keyout registry/tls.key -out registry/tls.pem \
  -subj /CN=registry -addext subjectAltName=IP:127.0.0.1 2> /dev/null
tracewire init registry --member example/registry --name Registry --country AT --root root.json \
  --directory http://127.0.0.1:$DIRECTORY --exchange-url https://127.0.0.1:$REGISTRY \
  --set tls_certificate=tls.pem --set tls_key=tls.key --set exchange_bind=127.0.0.1:$REGISTRY \
  --set agency_bind=127.0.0.1:$AGENCY --set operations_bind=127.0.0.1:$OPERATIONS
tracewire member request registry
tracewire directory admit authority registry/member-request.json --role registry
tracewire member request registry --answer registry/member-request.challenge.json
tracewire directory admit authority registry/member-request.json --role registry
tracewire directory publish authority
setsid tracewire run registry < /dev/null > /dev/null 2> registry.log & echo $! > registry.pid
"""


def blocks(name: str) -> list[tuple[str, str]]:
    """The fenced blocks of a runbook that are for a shell: (mark, text)."""
    return re.findall(r"^```sh ?(\w*)\n(.*?)^```", (RUNBOOKS / name).read_text(), re.DOTALL | re.MULTILINE)


class Machine:
    """A folder that stands for a machine, with a PostgreSQL cluster, an authority and a peer."""

    def __init__(self, folder: Path, server: EmbeddedServer) -> None:
        self.folder, primary = folder, server._folder
        owner = (primary / "data").stat()
        ports = {
            each: str(_free_port())
            for each in ("DIRECTORY", "REGISTRY", "AGENCY", "OPERATIONS", "8440", "8441", "8442")
        }
        self.names = {
            "https://directory.example.org": f"http://127.0.0.1:{ports['DIRECTORY']}",
            "trace.example.org:8441": f"127.0.0.1:{ports['8441']}", "0.0.0.0:8441": f"127.0.0.1:{ports['8441']}",
            "127.0.0.1:8442": f"127.0.0.1:{ports['8442']}",
            "--set exchange_bind": f"--set agency_bind=127.0.0.1:{ports['8440']} --set operations_bind=127.0.0.1:{ports['8442']} --set exchange_bind",
            "-p 5433": "-p 5433 -c max_connections=200",  # as the primary's, which has it on its command line
            "@127.0.0.1:5432/tracewire?": f"@/tracewire?host={server._socket_folder}&port=5432&",
            "-o postgres": f"-o {owner.st_uid}",
            "/run/postgresql": str(server._socket_folder), "/usr/local/share/tracewire": str(ROOT / "deploy/postgres"),
            "/opt/tracewire/bin": f"{folder}/bin",
            **{f"{place}/": f"{folder}{place}/" for place in ("/etc/tracewire", "/var/lib/tracewire", "/var/backups/tracewire", "/var/lib/postgresql", "/tmp")},
        }  # fmt: skip
        self.environment = {
            "PATH": f"{server._bin}:{BIN}:{os.environ['PATH']}", "HOME": str(folder), "W": str(folder),
            "PRIMARY": str(primary), "PGHOST": str(server._socket_folder), "PGUSER": "postgres", "PGUID": str(owner.st_uid), "PGGID": str(owner.st_gid), **ports,
        }  # fmt: skip
        self.environment = {name: value for name, value in self.environment.items() if not name.isdigit()}
        for place in ("etc/tracewire", "var/lib/tracewire", "var/backups/tracewire", "tmp"):
            (folder / place).mkdir(parents=True)
        (folder / "var/lib/postgresql").mkdir()
        os.chown(folder / "var/lib/postgresql", owner.st_uid, owner.st_gid)
        (folder / "bin").mkdir()
        (folder / "bin/tracewire-backup").symlink_to(ROOT / "deploy/tracewire-backup")
        shutil.copy(ROOT / "gateway/runtime/demo/request.json", folder / "request.json")

    def run(self, script: str) -> str:
        """What a script said; it must succeed."""
        path = self.folder / "script"
        path.write_text(MACHINE + script)
        with (self.folder / "said").open("w+") as said:
            process = subprocess.Popen(
                ["bash", str(path)], env=self.environment, stdin=subprocess.DEVNULL, stdout=said, stderr=said,
            )  # fmt: skip
            try:
                code = process.wait(100)
            except subprocess.TimeoutExpired:
                process.kill()
                code = process.wait()
            said.seek(0)
            text = said.read()
        assert code == 0, text + self.logs()
        return text

    def runbook(self, name: str, drills: Mapping[int, str] = MappingProxyType({})) -> str:
        """What a runbook's commands said; before the blocks of these numbers something happens."""
        script = []
        for at, (mark, text) in enumerate(blocks(name)):
            script += [drills[at]] if at in drills else []
            text = re.sub("|".join(map(re.escape, self.names)), lambda found: self.names[found[0]], text)
            if mark == "authority":
                (self.folder / f"{name}.{at}").write_text(text)
                text = f"authority $W/{name}.{at}\n"
            script += [text] if mark in ("", "drill", "authority") else []
        assert script
        return self.run("\n".join(script))

    def logs(self) -> str:
        logs = [*self.folder.glob("*.log"), *self.folder.glob("var/lib/postgresql/*.log")]
        return "\n".join(path.read_text()[-2000:] for path in logs)

    def end(self) -> None:
        for path in self.folder.glob("*.pid"):
            with suppress(ProcessLookupError, ValueError):
                os.kill(int(path.read_text()), signal.SIGTERM)
        replica = self.folder / "var/lib/postgresql/replica/postmaster.pid"
        if replica.exists():
            with suppress(ProcessLookupError):
                os.kill(int(replica.read_text().split("\n")[0]), signal.SIGQUIT)


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    """A machine on which `install.md` was followed. Not in tmp_path, whose parent is closed to PostgreSQL's account."""
    folder = Path(tempfile.mkdtemp(prefix="tw-book-"))
    folder.chmod(0o755)
    server = EmbeddedServer(folder / "primary")
    asyncio.run(server.start())
    made = Machine(folder, server)
    try:
        made.run(NETWORK)
        made.installed = made.runbook("install.md")  # type: ignore[attr-defined]
        yield made
    finally:
        made.end()
        asyncio.run(server.stop())
        shutil.rmtree(folder, ignore_errors=True)


def test_every_block_is_sound_shell() -> None:
    seen = set()
    for path in sorted(RUNBOOKS.glob("*.md")):
        for mark, text in blocks(path.name):
            seen.add(mark)
            done = subprocess.run(["bash", "-n"], input=text, text=True, capture_output=True)
            assert done.returncode == 0, (path.name, text, done.stderr)
    assert seen == {"", "root", "drill", "authority"}


def test_runbooks_name_only_files_that_are_there() -> None:
    for path in RUNBOOKS.glob("*.md"):
        links = [target for target in re.findall(r"\]\(([^)#]+)", path.read_text()) if "://" not in target]
        assert [target for target in links if not (path.parent / target).exists()] == [], path.name


def test_an_installed_node_is_ready_and_the_doctor_finds_nothing_wrong(machine: Machine) -> None:
    said = machine.installed  # type: ignore[attr-defined]
    assert '"ready": true' in said
    assert "wrong" not in said.partition('"ready": true')[2].replace('"wrong": {}', "")


def test_an_upgrade_migrates_and_comes_back(machine: Machine) -> None:
    said = machine.runbook("upgrade.md")
    assert "The schema is at version" in said
    assert '"ready": true' in said


def test_a_backup_restores_and_an_older_one_is_refused_until_the_newest_is_back(machine: Machine) -> None:
    said = machine.runbook("backup-and-restore.md")
    assert said.count('"ready": true') == 3
    newest, refused = said.index('"ready": true'), said.index('"ready": false')
    assert newest < refused < said.rindex('"ready": true')
    assert "ledger.rollback" in said[refused:]
    assert "doctor: exit code 3" in said[refused:]
    assert "the database is behind the guard" in said[refused:]
    assert "recover: exit code 1" in said[refused:]
    for tar in (machine.folder / "var/backups/tracewire/police").rglob("node.tar"):
        names = subprocess.run(["tar", "-tf", tar], capture_output=True, text=True, check=True).stdout.split()
        assert "./keys/node.key" in names
        assert not [name for name in names if "guard" in name], "a guard never comes back"
        assert tar.stat().st_mode & 0o077 == 0


def test_a_full_disk_is_looked_at_and_only_old_backups_go(machine: Machine) -> None:
    backups = machine.folder / "var/backups/tracewire/police"
    (backups / "20200101T000000Z").mkdir(parents=True)
    os.utime(backups / "20200101T000000Z", (0, 0))
    before = set(backups.iterdir())
    said = machine.runbook("full-disk.md")
    assert "write_ahead_log" in said
    assert before - set(backups.iterdir()) == {backups / "20200101T000000Z"}


def test_lost_and_damaged_keys_are_said_and_mended_and_the_authority_can_stop_a_member(machine: Machine) -> None:
    said = machine.runbook("key-loss.md")
    assert "The guard is at size" in said
    assert "chmod 600" in said
    assert "doctor: exit code 3" in said
    assert "example/police is suspended" in said
    assert "OK example/police/" in said


class Load(Thread):
    """A client that submits request after request, each under its key until it is accepted, and writes down what was."""

    def __init__(self, node: Path, accepted: Path) -> None:
        super().__init__()
        self._node, self._accepted, self._ending = node, accepted, Event()
        accepted.touch()

    def run(self) -> None:
        asyncio.run(self._submit())

    def end(self) -> list[str]:
        """The threads of all that was accepted."""
        self._ending.set()
        self.join()
        return self._accepted.read_text().split()

    async def _submit(self) -> None:
        async with AgencyClient.of_node(self._node) as agency:
            for n in count():
                while not self._ending.is_set():
                    with suppress(ProblemError):
                        found = await agency.submit("example/registry", trace_request(), key=f"load-{n:08}")
                        with self._accepted.open("a") as file:
                            file.write(f"{found.thread}\n")
                        break
                    await asyncio.sleep(0.1)
                else:
                    return


async def delivered(node: Path, threads: Sequence[str]) -> set[str]:
    """Of these threads, those whose request was delivered; after a while at most."""
    async with AgencyClient.of_node(node) as agency:
        for _ in range(300):
            found = [thread async for thread in agency.threads()]
            done = {str(each.thread) for each in found if each.state != "SENT"}
            if done >= set(threads):
                break
            await asyncio.sleep(0.1)
    assert len(found) == len({each.thread for each in found})
    return done


KILLED = """
held=$(wc -l < "$W/accepted")
until [ "$(wc -l < "$W/accepted")" -ge $((held + 30)) ]; do sleep 0.1; done
kill -9 "$(head -n 1 "$PRIMARY/data/postmaster.pid")"
touch "$W/dead"
"""


def test_a_promoted_replica_has_all_that_was_accepted_and_passes_the_guard_by_the_word_of_the_other_members(
    machine: Machine,
) -> None:
    node = machine.folder / "var/lib/tracewire/police"
    guard = node / "keys/guard.json"
    ((*_, timeline),) = json.loads(guard.read_text())["marks"].values()
    load = Load(node, machine.folder / "accepted")
    load.start()
    try:
        said = machine.runbook("promotion.md", {1: KILLED})
    finally:
        accepted = load.end()
    assert len(accepted) == len(set(accepted)) >= 30
    assert asyncio.run(delivered(node, accepted)) >= set(accepted)
    ((*_, newer),) = json.loads(guard.read_text())["marks"].values()
    assert newer > timeline
    assert "The guard is at size" in said
    assert "example/registry holds size" in said
    assert '"ready": true' in said
