"""What `deploy/` ships is tried: settings, roles, units, images, alerts and the dashboard fit the program as it is."""

import json
import re
import shutil
import subprocess
import tomllib
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import yaml

from adapters.postgres.embedded import EmbeddedServer
from adapters.postgres.migrate import migrate
from gateway.runtime.settings import Settings, make_settings
from tests.federation import Federation
from tests.runtime.serving import operations, served

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
ALERTS = yaml.safe_load((DEPLOY / "prometheus/alerts.yaml").read_text())["groups"][0]["rules"]


def ran(*command: object, **more: Any) -> str:
    """What a command said; it must succeed."""
    done = subprocess.run([str(each) for each in command], capture_output=True, text=True, timeout=60, **more)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def needs(program: str, package: str) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"needs {program}: apt-get install {package}")


def test_the_example_settings_explain_every_setting_and_show_each_default() -> None:
    lines = (DEPLOY / "tracewire.toml").read_text().splitlines()
    shown = {found[1]: at for at, line in enumerate(lines) if (found := re.match(r"(?:# )?([a-z_]+) = ", line))}
    assert list(shown) == list(Settings.model_fields)
    assert all(re.match(r"# [A-Z].*\.$", lines[at - 1]) for at in shown.values()), "one line explains each"
    given = tomllib.loads("\n".join(lines))
    settings = make_settings(given, "the example")
    whole = tomllib.loads("\n".join(re.sub(r"^# ([a-z_]+ = )", r"\1", line) for line in lines))
    assert make_settings(whole, "the example") == settings, "what is commented out is the default"


async def denied(doing: Awaitable[Any]) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await doing


async def test_the_roles_migrate_and_write_and_the_application_cannot_change_its_ledger(
    postgres: EmbeddedServer, database_name: str, tmp_path: Path
) -> None:
    (tmp_path / "password").write_text("a 'quoted' password\n")
    environment = {f"TRACEWIRE_{role}_PASSWORD_FILE": str(tmp_path / "password") for role in ("OWNER", "APP")}
    psql = postgres._bin / "psql"
    arguments = (psql, "--no-psqlrc", "--quiet", f"--set=name={database_name}", f"--file={DEPLOY}/postgres/roles.sql")
    ran(*arguments, postgres.dsn("postgres"), env=environment)
    owner, app = (postgres.dsn(database_name, user=f"{database_name}_{role}") for role in ("owner", "app"))
    await migrate(owner)
    connection = await asyncpg.connect(f"{app}&passfile={tmp_path}/none")
    try:
        tables = [
            row[0] for row in await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        ]
        assert {"entry", "checkpoint", "outbox"} <= set(tables)
        await connection.execute("INSERT INTO entry (origin, index, data) VALUES ('o', 0, 'x')")
        for table in ("entry", "checkpoint"):
            await denied(connection.execute(f"UPDATE {table} SET origin = 'p'"))
            await denied(connection.execute(f"DELETE FROM {table}"))
        for table in tables:
            await denied(connection.execute(f"TRUNCATE {table}"))
            await denied(connection.execute(f"ALTER TABLE {table} ADD COLUMN more text"))
        await denied(connection.execute("CREATE TABLE another (id int)"))
        await denied(connection.execute("CREATE SCHEMA another"))
        await denied(connection.execute("UPDATE alembic_version SET version_num = '9'"))
        assert not await connection.fetchval(
            "SELECT rolsuper OR rolcreatedb OR rolcreaterole OR rolreplication FROM pg_roles WHERE rolname = current_user"
        )
    finally:
        await connection.close()
    admin = await asyncpg.connect(postgres.dsn("postgres"))
    try:
        assert not await admin.fetchval("SELECT has_database_privilege('public', $1::text, 'CONNECT')", database_name)
        stored = await admin.fetchval("SELECT rolpassword FROM pg_authid WHERE rolname = $1", f"{database_name}_app")
        assert stored.startswith("SCRAM-SHA-256$")
    finally:
        await admin.close()
    said = subprocess.run(
        [psql, "--no-psqlrc", f"--file={DEPLOY}/postgres/roles.sql", postgres.dsn("postgres")],
        env={},
        capture_output=True,
        timeout=30,
    )
    assert said.returncode, "without its password files it makes nothing"


def test_the_compose_file_publishes_no_operations_and_keeps_secrets_in_files() -> None:
    found = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    node, database = found["services"]["node"], found["services"]["database"]
    assert [port.rsplit(":", 1)[1] for port in node["ports"]] == ["8441", "8440"]
    assert "ports" not in database
    assert database["networks"] == ["inside"]
    assert found["networks"]["inside"] == {"internal": True}
    assert "/readyz" in node["healthcheck"]["test"][-1]
    assert (node["read_only"], node["cap_drop"], node["ulimits"]) == (True, ["ALL"], {"core": 0})
    for service in (node, database):
        for name, value in service["environment"].items():
            assert value.startswith("/run/secrets/") == name.endswith("_FILE"), name
            assert name.endswith("_FILE") or not re.search("PASS|KEY|SECRET", name), name
        assert {value.rpartition("/")[2] for value in service["environment"].values() if "/secrets/" in value} <= set(
            service["secrets"]
        )
        mounted = [volume.partition(":")[0] for volume in service["volumes"]]
        assert all(volume in found["volumes"] or (DEPLOY / volume).exists() for volume in mounted)
    assert {each for s in (node, database) for each in s["secrets"]} == found["secrets"].keys()
    assert all(set(each) == {"file"} for each in found["secrets"].values())


def test_the_image_is_made_of_what_is_here_and_runs_as_an_ordinary_user() -> None:
    text = (DEPLOY / "Containerfile").read_text().replace("\\\n", " ")
    _, build, final = text.split("\nFROM ")
    copied = [word for line in re.findall(r"^COPY (.*)$", build, re.MULTILINE) for word in line.split()[:-1]]
    assert {"protocols", "keys", "adapters", "gateway", "pyproject.toml"} <= set(copied)
    assert all((ROOT / each).exists() for each in copied)
    ignored = (DEPLOY / "Containerfile.dockerignore").read_text().splitlines()
    assert {line[1:] for line in ignored if line.startswith("!")} == set(copied)
    assert not re.search(r"\b(pip|apt-get|apt|gcc|git)\b", final), "nothing is built or fetched in what runs"
    (user,) = re.findall(r"^USER (\S+)$", final, re.MULTILINE)
    assert int(user.partition(":")[0]) > 0
    assert final.index("\nUSER ") > final.index("\nRUN ")
    assert 'ENTRYPOINT ["tracewire"]' in final


def test_every_alert_says_what_why_and_where_the_way_out_is_written() -> None:
    assert len({rule["alert"] for rule in ALERTS}) == len(ALERTS) > 10
    for rule in ALERTS:
        assert rule["labels"]["severity"] in ("critical", "warning"), rule["alert"]
        assert rule["annotations"].keys() == {"summary", "why", "runbook"}, rule["alert"]
        path, _, section = rule["annotations"]["runbook"].partition("#")
        text = (ROOT / path).read_text()
        assert not section or re.search(rf"^## {section}$", text, re.MULTILINE | re.IGNORECASE), rule["alert"]


def test_the_alerts_fire_when_they_should_and_not_before() -> None:
    needs("promtool", "prometheus")
    folder = DEPLOY / "prometheus"
    assert f"{len(ALERTS)} rules found" in ran("promtool", "check", "rules", "alerts.yaml", cwd=folder)
    assert "SUCCESS" in ran("promtool", "test", "rules", "alerts_test.yaml", cwd=folder)
    tried = [each["name"] for each in yaml.safe_load((folder / "alerts_test.yaml").read_text())["tests"]]
    assert tried[1:] == [rule["alert"] for rule in ALERTS]


async def test_dashboard_and_alerts_name_only_metrics_that_a_node_has(fed: Federation) -> None:
    (node,) = await fed.nodes("a")
    await node.stop()
    async with served(node) as office:
        await operations(office, "/readyz")
        text = (await operations(office, "/metrics")).body.decode()
    there = set(re.findall(r"^# TYPE (\S+) ", text, re.MULTILINE))
    there |= {f"{name}_{part}" for name in there for part in ("bucket", "count", "sum")}
    dashboard = json.loads((DEPLOY / "grafana/tracewire.json").read_text())
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    asked += [rule["expr"] for rule in ALERTS]
    named = {name for expression in asked for name in re.findall(r"\btracewire_\w+", expression)}
    assert len(named) > 20
    assert named - there == set()


def test_the_units_are_valid_and_leave_a_node_little_to_do_harm_with(tmp_path: Path) -> None:
    needs("systemd-analyze", "systemd")
    for path in (DEPLOY / "systemd").iterdir():  # their programs are not installed here
        (tmp_path / path.name).write_text(re.sub(r"ExecStart=\S+", "ExecStart=/bin/true", path.read_text()))
    assert (
        ran(
            "systemd-analyze",
            "verify",
            *(tmp_path / name for name in ("tracewire@.service", "tracewire-backup@.timer")),
        )
        == ""
    )
    for name, most in (("tracewire@.service", 1.5), ("tracewire-backup@.service", 2.0)):
        said = ran("systemd-analyze", "security", "--offline=true", tmp_path / name)
        (exposure,) = re.findall(r"exposure level for \S+: ([0-9.]+)", said)
        assert float(exposure) <= most, said
    unit = (DEPLOY / "systemd/tracewire@.service").read_text()
    assert "\nLimitCORE=0\n" in unit
    assert "\nMemoryDenyWriteExecute=yes\n" in unit
