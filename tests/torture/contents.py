"""The contents of files, which can be computed from the file, the version and the offset. Pure.

A file's bytes are cells of 32 bytes, each of which names the file (a number), the version (the write that put it
there) and its place in the file. So all cells of all files differ, and a wrong one shows where it comes from.
"""

from __future__ import annotations

import re
from typing import Final

CELL_BYTES: Final = 32
_CELL: Final = re.compile(rb"([0-9a-f]{8})\.([0-9a-f]{8})\.([0-9a-f]{13})\n")


def cell(file: int, version: int, place: int) -> bytes:
    """Return the cell at `place` as written by this version of the file."""
    return b"%08x.%08x.%013x\n" % (file, version, place)


def make(file: int, version: int, offset: int, size: int) -> bytes:
    """Return the `size` bytes at `offset` as written by this version of the file."""
    first, last = offset // CELL_BYTES, -(-(offset + size) // CELL_BYTES)
    head = b"%08x.%08x." % (file, version)
    cells = b"".join([b"%b%013x\n" % (head, place) for place in range(first, last)])
    start = offset - first * CELL_BYTES
    return cells[start : start + size]


def explain(data: bytes, offset: int) -> str:
    """Say in words where these bytes, found at `offset` of a file, come from."""
    shown = data[: 4 * CELL_BYTES]
    if not shown:
        return "nothing"
    if not shown.strip(b"\0"):
        return "zeros"
    found = _CELL.search(shown)
    if found is None:
        return f"bytes that nobody wrote: {shown[:40]!r}"
    file, version, place = (int(part, 16) for part in found.groups())
    text = f"version {version} of file {file}"
    if place * CELL_BYTES != offset + found.start():
        text += f" from place {place * CELL_BYTES}"
    return text
