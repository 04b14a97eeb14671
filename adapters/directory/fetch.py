"""Where TUF files come from: an authority or a peer over HTTP, or a folder; bounded in size and time."""

import time
from collections.abc import Callable
from pathlib import Path

import urllib3

from adapters.directory.repository import Repository
from protocols.limits import DIRECTORY_FETCH_S, DIRECTORY_FILE_BYTES_MAX

Fetch = Callable[[str], bytes | None]
"""The bytes of a file of the repository, None where the source does not have it, OSError where it cannot be asked."""

_CONNECT_S = 5
_SILENCE_S = 10


def fetch_from(source: str) -> Fetch:
    """Fetches from `http(s)://...` or else from a folder of this machine."""
    if not source.startswith(("http://", "https://")):
        return Repository(folder=Path(source)).read
    pool = urllib3.PoolManager(timeout=urllib3.Timeout(connect=_CONNECT_S, read=_SILENCE_S), retries=False)
    return lambda name: _get(pool, f"{source.rstrip('/')}/{name}")


def _get(pool: urllib3.PoolManager, url: str) -> bytes | None:
    deadline = time.monotonic() + DIRECTORY_FETCH_S
    try:
        response = pool.request("GET", url, preload_content=False, decode_content=False, redirect=False)
        data = bytearray()
        while piece := response.read1(65_536, decode_content=False):
            data += piece
            if len(data) > DIRECTORY_FILE_BYTES_MAX or time.monotonic() > deadline:
                response.close()
                raise ConnectionError("the source sends too much or too slowly")
        response.release_conn()
    except urllib3.exceptions.HTTPError as error:
        raise ConnectionError("the source cannot be reached") from error
    if response.status == 404:
        return None
    if response.status != 200:
        raise ConnectionError(f"the source answered {response.status}")
    return bytes(data)
