"""Attachments between nodes: the headers of `/blobs/{digest}` (docs/protocol.md section 4)."""

import re

from protocols.limits import ATTACHMENT_BYTES_MAX, BLOB_PIECE_BYTES, BLOB_RANGE_BYTES_MAX
from protocols.problems import ProblemError

BLOB_TYPE = "application/octet-stream"
OFFSET, COMPLETE = "Upload-Offset", "Upload-Complete"
_DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)
_PUT = re.compile(r"bytes (0|[1-9]\d{0,11})-(0|[1-9]\d{0,11})/([1-9]\d{0,11})", re.ASCII)
_GET = re.compile(r"bytes=(0|[1-9]\d{0,11})-(0|[1-9]\d{0,11})?", re.ASCII)


def sealed_bytes(plain: int) -> int:
    """The length of the ciphertext of so many bytes: salt and commitment, and 16 bytes a chunk of 16 KiB (the last is shorter)."""
    return 56 + plain + 16 * (plain // 16_384 + 1)


def plain_bytes(sealed: int) -> int:
    """The length of what was sealed into so many bytes."""
    return sealed - 56 - 16 * ((sealed - 56) // 16_400 + 1)


def parse_digest(text: str) -> bytes:
    """The digest that a path names; `http.not_found` else."""
    if not _DIGEST.fullmatch(text):
        raise ProblemError("http.not_found", "not a digest in hex")
    return bytes.fromhex(text)


def parse_put(text: str) -> tuple[int, int, int]:
    """(offset, length, size) of a Content-Range; `blob.range` unless it begins at a piece, and ends at one or at the end."""
    found = _PUT.fullmatch(text)
    first, last, size = (int(each) for each in found.groups()) if found else (0, 0, 0)
    length = last - first + 1
    whole = first % BLOB_PIECE_BYTES == 0 and (length % BLOB_PIECE_BYTES == 0 or last == size - 1)
    if (
        found is None
        or not whole
        or not 0 < length <= BLOB_RANGE_BYTES_MAX
        or not last < size <= sealed_bytes(ATTACHMENT_BYTES_MAX)
    ):
        raise ProblemError("blob.range", f"send pieces of {BLOB_PIECE_BYTES} bytes, {BLOB_RANGE_BYTES_MAX} at most")
    return first, length, size


def parse_get(text: str) -> tuple[int, int]:
    """(offset, length) of a Range; `blob.range` unless it begins at a piece and is not too long."""
    found = _GET.fullmatch(text)
    first = int(found[1]) if found else 1
    length = int(found[2]) - first + 1 if found and found[2] else BLOB_RANGE_BYTES_MAX
    if first % BLOB_PIECE_BYTES or not 0 < length <= BLOB_RANGE_BYTES_MAX:
        raise ProblemError(
            "blob.range", f"ask from a multiple of {BLOB_PIECE_BYTES}, for {BLOB_RANGE_BYTES_MAX} at most"
        )
    return first, length
