"""What is written and how it is compared. Contents are made before the clock starts, and no two blocks are alike."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from bench.place import Place

MIB: Final = 1 << 20
SMALL_BYTES: Final = 4096
PRIME: Final = 31
"""Number of different MiB. A prime, so that equal ones are never a power of two apart."""
_STAMP_BYTES: Final = 8
_SHUFFLED: Final = hashlib.shake_128(b"dfsfuse bench").digest(PRIME * MIB)

clock = time.perf_counter


class WrongContentError(Exception):
    """What was read is not what was written; a benchmark of wrong answers is worthless."""


@dataclass(frozen=True)
class Sizes:
    """How much is done. `random_s` is the limit in seconds on a step of random reads or writes."""

    large_mib: int
    files: int
    synced_files: int
    random_operations: int
    random_s: float


FULL: Final = Sizes(large_mib=1024, files=2000, synced_files=300, random_operations=4000, random_s=5.0)
QUICK: Final = Sizes(large_mib=128, files=300, synced_files=100, random_operations=500, random_s=1.0)


@dataclass(frozen=True)
class Step:
    """A row of the table. `run` returns a count and the seconds it took."""

    name: str
    group: str
    """Steps of a group depend on each other, in order."""
    unit: str
    """What is counted per second; or SECONDS, and then the row shows seconds, of which fewer are better."""
    run: Callable[[Place, Sizes], tuple[float, float]]


SECONDS: Final = "s"


def block(number: int) -> bytes:
    """Return the large file's MiB with this number."""
    start = number % PRIME * MIB
    return number.to_bytes(_STAMP_BYTES, "big") + _SHUFFLED[start + _STAMP_BYTES : start + MIB]


def block_part(number: int, start: int, size: int) -> bytes:
    """Return part of the MiB with this number."""
    if start >= _STAMP_BYTES:
        first = number % PRIME * MIB + start
        return _SHUFFLED[first : first + size]
    return block(number)[start : start + size]


def block_ends() -> list[bytes]:
    """Return what follows the stamp in each different MiB, for comparing blocks without constructing them."""
    return [_SHUFFLED[number * MIB + _STAMP_BYTES : (number + 1) * MIB] for number in range(PRIME)]


def is_block(found: bytes, number: int, ends: list[bytes]) -> bool:
    """Return whether this is the MiB with this number."""
    is_right = found.startswith(number.to_bytes(_STAMP_BYTES, "big")) and found.endswith(ends[number % PRIME])
    return is_right and len(found) == MIB


def small(number: int) -> bytes:
    """Return the content of the small file with this number."""
    start = number * 4099 % (PRIME * MIB - SMALL_BYTES)
    return number.to_bytes(_STAMP_BYTES, "big") + _SHUFFLED[start + _STAMP_BYTES : start + SMALL_BYTES]


def expect(found: bytes, expected: bytes, where: str) -> None:
    """Raise WrongContentError unless they are equal."""
    if found != expected:
        raise WrongContentError(f"{where}: {len(found)} bytes, not the {len(expected)} that were written")


def write(descriptor: int, data: bytes) -> None:
    """Write all the data."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def read(descriptor: int, size: int) -> bytes:
    """Read `size` bytes, or up to the end of the file."""
    parts = []
    while size and (part := os.read(descriptor, size)):
        parts.append(part)
        size -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)
