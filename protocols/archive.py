"""Zip archives that have one text: members stored, fixed dates, in the order given; a changed byte is named."""

import struct
from collections.abc import Mapping
from zlib import crc32

from protocols.limits import EVIDENCE_BYTES_MAX
from protocols.problems import ProblemError

FILES_MAX = 60_000  # zip counts them in 16 bits
_LOCAL, _CENTRAL, _END = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"
_DATE = 0x0021  # 1980-01-01, the first day of zip
_HEADER = struct.Struct("<4s5H3I2H")
_DIRECTORY = "the zip's directory"


def pack(files: Mapping[str, bytes]) -> bytes:
    """The archive's bytes; the same files in the same order give the same bytes. `http.too_large` above the bound."""
    if len(files) > FILES_MAX or sum(map(len, files.values())) > EVIDENCE_BYTES_MAX:
        raise ProblemError("http.too_large", "the archive is too long")
    body, directory = bytearray(), bytearray()
    for name, data in files.items():
        path, at = name.encode(), len(body)
        fields = struct.pack("<5H3I2H", 10, 0, 0, 0, _DATE, crc32(data), len(data), len(data), len(path), 0)
        directory += _CENTRAL + struct.pack("<H", 10) + fields + struct.pack("<3H2I", 0, 0, 0, 0, at) + path
        body += _LOCAL + fields + path + data
    end = struct.pack("<4H2IH", 0, 0, len(files), len(files), len(directory), len(body), 0)
    return bytes(body + directory + _END + end)


def unpack(data: bytes) -> dict[str, bytes]:
    """The files of an archive that `pack` wrote; `evidence.invalid` names the file whose bytes or header differ."""
    if len(data) > 2 * EVIDENCE_BYTES_MAX:
        raise ProblemError("http.too_large", "the archive is too long")
    files: dict[str, bytes] = {}
    at, end = 0, int.from_bytes(data[-6:-2], "little")
    while at != end and data[at : at + 4] != _CENTRAL:
        if len(data) - at < _HEADER.size:
            raise ProblemError("evidence.invalid", f"{_DIRECTORY}: cut off")
        found = _HEADER.unpack_from(data, at)
        crc, size, length = found[6], found[7], found[9]
        start = at + _HEADER.size + length
        name = data[at + _HEADER.size : start].decode("ascii", "replace")
        content = data[start : start + size]
        if found[0] != _LOCAL or crc32(content) != crc or name in files:
            raise ProblemError("evidence.invalid", f"{name[:200]}: its bytes or its header were changed")
        files[name] = content
        at = start + size
    _compare(files, data)
    return files


def _compare(files: Mapping[str, bytes], data: bytes) -> None:
    """`evidence.invalid` names where the archive differs from the one text of its files."""
    again, at = pack(files), 0
    if again == data:
        return
    for name, content in files.items():
        head = at + _HEADER.size + len(name.encode())
        if again[at:head] != data[at:head]:
            raise ProblemError("evidence.invalid", f"{name[:200]}: its zip header was changed")
        at = head + len(content)
    raise ProblemError("evidence.invalid", f"{_DIRECTORY}: it was changed")
