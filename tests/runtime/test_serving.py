"""`tracewire audit serve` as a process: pages over a ledger that lies elsewhere."""

import contextlib
import functools
import html
import http.server
import json
import re
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from gateway.console.words import DIFFERENCES
from tests.http.wire import free_socket
from tests.interop.conftest import Exchange, Ledger

COMMAND = str(Path(sys.executable).with_name("tracewire"))


def ledger(folder: Path) -> Ledger:
    found = Ledger("test/br-pf")
    found.open()
    found.add(*(found.entry("admin", code="test") for _ in range(300)))
    found.write(folder)
    return found


def port() -> int:
    with contextlib.closing(free_socket()) as bound:
        return int(bound.getsockname()[1])


@contextlib.contextmanager
def serving(*tokens: object) -> Iterator[str]:
    """The address that it says it serves at."""
    command = [COMMAND, "audit", "serve", *map(str, tokens)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


def said(*tokens: object) -> tuple[int, str]:
    """The exit code of one that serves nothing, and why."""
    command = [COMMAND, "audit", "serve", *map(str, tokens)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    return done.returncode, done.stderr


def get(url: str, host: str | None = None) -> tuple[int, str]:
    try:
        request = urllib.request.Request(url, headers={"Host": host} if host else {})
        with urllib.request.urlopen(request, timeout=8) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        body = error.read().decode()
        found = re.search(r"<code>([a-z_.]+)</code>", body)
        return error.code, found[1] if found else json.loads(body)["code"]


def test_what_the_other_member_says_is_shown_beside_an_entry_that_names_it(tmp_path: Path) -> None:
    exchange = Exchange()
    a, b = exchange.a, exchange.b
    _, _, receipt = exchange.whole(1, 1, a, b)
    sent = exchange.sent(2, 2, a, b.member)
    stranger = exchange.receipt(2, 2, 0, a, b)  # names the first entry of b as if it were its answer
    folders = a.write(tmp_path / "a"), b.write(tmp_path / "b")
    keys = [f"--vkey={key}" for each in (a, b) for key in each.signer.vkeys]
    with serving(folders[0], "--other", folders[1], "--port", port(), *keys) as url:
        log = f"{url}/ledgers/{log_of(a)}/entries"
        status, text = get(f"{log}/{receipt}")
        assert (status, f"of {b.origin}" in text, "its signature holds" in text) == (200, True, True)
        assert "It names no entry of the other ledger" in get(f"{log}/{sent}")[1]
        shown = html.unescape(compared(url))
        with urllib.request.urlopen(f"{url}/differences", timeout=8) as response:
            assert "frame-ancestors 'none'" in response.headers["Content-Security-Policy"]
            assert response.headers["Cache-Control"] == "no-store"
        assert f"{DIFFERENCES['receipt.unfounded']}</td>" in shown
        assert f'<a href="/audit/ledgers/{log_of(a)}/entries/{stranger}">{stranger}</a>' in shown
        (tmp_path / "b" / "tile" / "entries" / "000.p").rename(tmp_path / "gone")
        assert get(f"{log}/{stranger}") == (404, "tile.missing"), "of the other, said as such"
    with serving(folders[0], "--other", folders[1], "--port", port(), *keys) as url:
        shown = compared(url)
        assert "cannot be compared: " in shown
        assert "tile/entries/000.p" in shown
    with serving(folders[0], "--port", port(), *keys) as url:
        assert get(f"{url}/differences")[0] == 404
    code, error = said(folders[0], "--other", folders[0], "--port", port())
    assert (code, "two of one ledger" in error) == (1, True), "it agrees with itself, which says nothing"


def test_a_clients_key_signs_nothing_for_a_server_that_anybody_on_the_way_could_be(tmp_path: Path) -> None:
    found, key = ledger(tmp_path), tmp_path / "client.pem"
    key.touch(mode=0o600)
    vkeys = [f"--vkey={each}" for each in found.signer.vkeys]
    code, error = said(f"http://192.0.2.1/v1/ledger/{log_of(found)}", "--key", key, *vkeys)
    assert (code, "plain HTTP is only for loopback" in error) == (1, True), error


def test_u03_u07_what_is_served_here_is_not_framed_or_cached_either(tmp_path: Path) -> None:
    found = ledger(tmp_path)
    with serving(tmp_path, "--port", port()) as url:
        log = f"{url}/ledgers/{log_of(found)}"
        for path in (
            url,
            log,
            f"{log}/entries/1",
            f"{log}/figures",
            f"{url}/audit.js",
            f"{url}/worker.js",
            f"{url}/audit.css",
        ):
            with urllib.request.urlopen(path, timeout=8) as response:
                headers = response.headers
            assert "frame-ancestors 'none'" in headers["Content-Security-Policy"], path
            assert "default-src 'none'" in headers["Content-Security-Policy"], path
            assert (headers["Cache-Control"], headers["Referrer-Policy"]) == ("no-store", "no-referrer"), path


def test_two_ledgers_on_web_servers_are_compared_too(tmp_path: Path) -> None:
    exchange = Exchange()
    a, b = exchange.a, exchange.b
    exchange.whole(1, 1, a, b)
    exchange.sent(2, 3, a, b.member)
    a.write(tmp_path / "a")
    b.write(tmp_path / "b")
    with web_server(tmp_path) as there, serving(f"{there}/a", "--other", f"{there}/b", "--port", port()) as url:
        assert f"{DIFFERENCES['sequence.gap']}</td>" in html.unescape(compared(url))


def test_figures_and_the_table_for_a_spreadsheet_go_on_to_older_entries(tmp_path: Path) -> None:
    found = ledger(tmp_path)
    found.add(*(found.entry("admin", code="later") for _ in range(20_000)))
    found.write(tmp_path)
    with serving(tmp_path, "--port", port()) as url:
        log = f"{url}/ledgers/{log_of(found)}"
        newest = get(f"{log}/figures")[1]
        assert "Entries 301 to 20300 of" in newest
        (older,) = re.findall(r'href="([^"]*before=\d+)"', newest)
        shown = get(url.removesuffix("/audit") + older)[1]
        assert "Entries 0 to 300 of" in shown
        assert '>admin</th><td class="number">300<' in shown
        assert "Older entries" not in shown
        rows = get(f"{log}/entries.csv?before=301&kind=admin")[1].splitlines()
        assert len(rows) == 301
        assert all('"test"' in row for row in rows[1:])


def log_of(ledger: Ledger) -> str:
    return sha256(ledger.origin.encode()).hexdigest()


def compared(url: str) -> str:
    """The page of differences once both ledgers have been read."""
    while "Look again" in (shown := get(f"{url}/differences")[1]):
        time.sleep(0.1)
    return shown


def test_a_folder_is_shown_to_this_machine_alone_and_by_the_auditors_own_keys(tmp_path: Path) -> None:
    found = ledger(tmp_path)
    with serving(tmp_path, "--port", port(), *(f"--vkey={key}" for key in found.signer.vkeys)) as url:
        _, shown = get(url)
        (path,) = re.findall(r'href="(/audit/ledgers/\w+)"', shown)
        base = url.removesuffix("/audit")
        status, page = get(base + path)
        assert (status, "This machine verified both signatures" in page, "301 entries" in page) == (200, True, True)
        assert "on your own machine" not in page
        assert get(base + path, host="evil.example:80") == (421, "http.misdirected")
        for elsewhere in ("../../../../../../etc/passwd", "..%2F..%2Fvkeys", "entries/../../checkpoint", "%00"):
            assert get(f"{base}{path}/tile/{elsewhere}")[0] in (400, 404), elsewhere
        request = urllib.request.Request(base + path, headers={"Sec-Fetch-Site": "cross-site"})
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(request, timeout=8)
        assert get(f"{base}/audit/gaps")[0] == 404


def test_what_does_not_hold_is_refused_with_its_reason(tmp_path: Path) -> None:
    found = ledger(tmp_path / "whole")
    other = Ledger("test/br-pf", seed=2)
    other.open()

    code, error = said(tmp_path / "whole", *(f"--vkey={key}" for key in other.signer.vkeys))
    assert (code, "both signatures are required" in error) == (1, True)
    code, error = said(tmp_path / "none")
    assert (code, "is not there" in error) == (1, True)
    code, error = said(f"http://127.0.0.1:{port()}")
    assert (code, "no ledger answers" in error) == (1, True)
    bundle = tmp_path / "whole/tile/entries/000"
    bundle.write_bytes(bundle.read_bytes().replace(b'"test"', b'"TEST"', 1))
    del found
    with serving(tmp_path / "whole", "--port", port()) as url:
        (path,) = re.findall(r'href="(/audit/ledgers/\w+)"', get(url)[1])
        base = url.removesuffix("/audit")
        assert get(f"{base}{path}/entries/5") == (400, "proof.path")
        assert get(f"{base}{path}/entries/300")[0] == 200, "the other bundle holds"


def fetch(*tokens: object) -> subprocess.CompletedProcess[str]:
    command = [COMMAND, "audit", "fetch", *map(str, tokens)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)


@contextlib.contextmanager
def web_server(folder: Path) -> Iterator[str]:
    """Any web server does."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_a_ledger_on_a_web_server_is_taken_here_goes_on_and_another_history_is_not(tmp_path: Path) -> None:
    found, here = ledger(tmp_path / "there"), tmp_path / "here"
    vkeys = [f"--vkey={key}" for key in found.signer.vkeys]
    with web_server(tmp_path / "there") as url:
        assert fetch(url, here, *vkeys).returncode == 0
        found.add(*(found.entry("admin", code="test") for _ in range(700)))
        found.write(tmp_path / "there")
        done = fetch(url, here, *vkeys)
        assert (done.returncode, "1001 entries" in done.stdout) == (0, True), done.stderr
    verified = subprocess.run([COMMAND, "ledger", "verify", here], capture_output=True, text=True, check=False)
    assert (verified.returncode, "1001 entries" in verified.stdout) == (0, True)
    before = {path: path.read_bytes() for path in here.rglob("*") if path.is_file()}
    fork = Ledger("test/br-pf")
    fork.open()
    fork.add(*(fork.entry("admin", code="other") for _ in range(1_200)))
    fork.write(tmp_path / "fork")
    older = Ledger("test/br-pf")
    older.open()
    older.write(tmp_path / "older")
    for name, says in (("fork", "another history"), ("older", "there are 1 now")):
        with web_server(tmp_path / name) as url:
            done = fetch(url, here, *vkeys)
        assert (done.returncode, says in done.stderr) == (1, True), done.stderr
        assert {path: path.read_bytes() for path in here.rglob("*") if path.is_file()} == before


def test_a_ledger_on_a_web_server_is_shown_as_it_grows_and_nothing_false_of_it(tmp_path: Path) -> None:
    found, entries = ledger(tmp_path), tmp_path / "tile" / "entries"
    vkeys = [f"--vkey={key}" for key in found.signer.vkeys]
    with web_server(tmp_path) as there, serving(there, "--port", port(), *vkeys) as url:
        log = f"{url}/ledgers/{log_of(found)}"
        assert "301 entries" in get(log)[1]
        found.add(*(found.entry("admin", code="later") for _ in range(99)))
        found.write(tmp_path)
        status, text = get(f"{log}/entries/399")
        assert (status, "proved it under a checkpoint of 400 entries" in text) == (200, True)
        last = entries / "001.p" / "144"
        last.write_bytes(last.read_bytes().replace(b'"later"', b'"LATER"'))
        assert "could not prove the entries" in get(log)[1]
        assert get(f"{log}/entries/399") == (400, "proof.path")
        last.unlink()
        assert get(f"{log}/entries/399") == (404, "tile.missing")
    code, error = said("http://127.0.0.1:1/nobody", "--port", port(), *vkeys)
    assert (code, "no ledger answers at 127.0.0.1:1" in error, "its server runs" in error) == (1, True, True), error
