"""Where TUF files come from: an authority or a peer over HTTP, or a folder; bounded in size and time."""

import time
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path

import urllib3

from adapters.directory.repository import Repository
from protocols.limits import DIRECTORY_FETCH_S, DIRECTORY_FILE_BYTES_MAX
from protocols.ports.directory import Fetch

_CONNECT_S = 5
_SILENCE_S = 10


def fetch_from(source: str, *, file_s: float = DIRECTORY_FETCH_S) -> Fetch:
    """Fetches from `http(s)://...`, each file within `file_s`, or else from a folder of this machine."""
    if not source.startswith(("http://", "https://")):
        return Repository(folder=Path(source)).read
    pool = urllib3.PoolManager(timeout=urllib3.Timeout(connect=_CONNECT_S, read=_SILENCE_S), retries=False)
    return lambda name: _get(pool, f"{source.rstrip('/')}/{name}", file_s)


def ask_time(source: str) -> datetime | None:
    """The time that an HTTP source says it is; None for a folder, OSError where it does not answer."""
    if not source.startswith(("http://", "https://")):
        return None
    pool = urllib3.PoolManager(timeout=urllib3.Timeout(connect=_CONNECT_S, read=_SILENCE_S), retries=False)
    try:
        answer = pool.request("HEAD", f"{source.rstrip('/')}/timestamp.json", redirect=False)
        return parsedate_to_datetime(answer.headers["Date"]).replace(tzinfo=UTC)
    except (urllib3.exceptions.HTTPError, KeyError, ValueError) as error:
        raise ConnectionError("the source does not say the time") from error


def _get(pool: urllib3.PoolManager, url: str, file_s: float) -> bytes | None:
    deadline = time.monotonic() + file_s
    try:
        response = pool.request("GET", url, preload_content=False, decode_content=False, redirect=False)
        data = bytearray()
        while piece := response.read1(65_536, decode_content=False):
            data += piece
            if len(data) > DIRECTORY_FILE_BYTES_MAX:
                response.close()
                break  # whoever asked sees that it is longer than any file may be, and refuses it as `dir.size`
            if time.monotonic() > deadline:
                response.close()
                raise ConnectionError("the source sends too slowly")
        response.release_conn()
    except urllib3.exceptions.HTTPError as error:
        raise ConnectionError("the source cannot be reached") from error
    if response.status == 404:
        return None
    if response.status != 200:
        raise ConnectionError(f"the source answered {response.status}")
    return bytes(data)
