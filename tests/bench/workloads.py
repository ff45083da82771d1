"""The work that is timed, on any folder. Every byte that is read is compared with what was written.

A `Place` is a folder and a way to make it cold. Each step gives how much it did and in how many seconds; what it needs
from an earlier step it finds on the disk. Contents are made before the clock starts. Single-threaded.
"""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

MIB: Final = 1 << 20
SMALL_BYTES: Final = 4096
FOLDERS: Final = 20
RANDOM_SECONDS: Final = 5.0
_STAMP_BYTES: Final = 8
_PRIME: Final = 31
_SHUFFLED: Final = hashlib.shake_128(b"dfsfuse bench").digest(_PRIME * MIB)

clock = time.perf_counter


class WrongContentError(Exception):
    """What was read is not what was written: a benchmark of wrong answers is worth nothing."""


@dataclass(frozen=True)
class Sizes:
    """How much is done."""

    large_mib: int
    files: int
    synced_files: int
    random_operations: int


FULL: Final = Sizes(large_mib=1024, files=2000, synced_files=300, random_operations=4000)
QUICK: Final = Sizes(large_mib=128, files=300, synced_files=100, random_operations=500)


@dataclass(frozen=True)
class Place:
    """Where it is done: a plain folder, or a mount."""

    name: str
    folder: Path
    make_cold: Callable[[], object]
    """After it nothing of the place is in any cache, as far as we may."""

    @property
    def large(self) -> Path:
        return self.folder / "large"

    @property
    def tree(self) -> Path:
        return self.folder / "tree"


@dataclass(frozen=True)
class Step:
    """One row of the table. `unit` is what `run` counts; the rate is count per second."""

    name: str
    group: str
    """Steps of a group need each other, in order."""
    unit: str
    run: Callable[[Place, Sizes], tuple[float, float]]


def _block(number: int) -> bytes:
    """The MiB of this number of the large file. No two are alike."""
    start = number % _PRIME * MIB
    return number.to_bytes(_STAMP_BYTES, "big") + _SHUFFLED[start + _STAMP_BYTES : start + MIB]


def _small(number: int) -> bytes:
    start = number * 4099 % (_PRIME * MIB - SMALL_BYTES)
    return number.to_bytes(_STAMP_BYTES, "big") + _SHUFFLED[start + _STAMP_BYTES : start + SMALL_BYTES]


def _expect(found: bytes, expected: bytes, where: str) -> None:
    if found != expected:
        raise WrongContentError(f"{where}: {len(found)} bytes, not the {len(expected)} that were written")


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _read(descriptor: int, size: int) -> bytes:
    parts = []
    while size and (part := os.read(descriptor, size)):
        parts.append(part)
        size -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def write_large(place: Place, sizes: Sizes) -> tuple[float, float]:
    """One file, in order, 1 MiB at a time, and an fsync."""
    blocks = [_block(number) for number in range(_PRIME)]
    seconds = 0.0
    start = clock()
    descriptor = os.open(place.large, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    for number in range(sizes.large_mib):
        if number >= _PRIME:
            seconds += clock() - start
            block = _block(number)
            start = clock()
        else:
            block = blocks[number]
        _write(descriptor, block)
    os.fsync(descriptor)
    os.close(descriptor)
    return sizes.large_mib * MIB / 1e6, seconds + clock() - start


def read_large(place: Place, sizes: Sizes) -> tuple[float, float]:
    """The same file from cold, in order, 1 MiB at a time. The comparing is timed with it (0.1 ms a MiB): a file system
    that reads ahead works on meanwhile."""
    place.make_cold()
    shuffled = [_SHUFFLED[number * MIB + _STAMP_BYTES : (number + 1) * MIB] for number in range(_PRIME)]
    start = clock()
    descriptor = os.open(place.large, os.O_RDONLY)
    for number in range(sizes.large_mib):
        found = _read(descriptor, MIB)
        is_right = found.startswith(number.to_bytes(_STAMP_BYTES, "big")) and found.endswith(shuffled[number % _PRIME])
        if not is_right or len(found) != MIB:
            _expect(found, _block(number), f"{place.large}, MiB {number}")
    os.close(descriptor)
    return sizes.large_mib * MIB / 1e6, clock() - start


def random_reads(place: Place, sizes: Sizes) -> tuple[float, float]:
    """4 KiB at random places of the large file, from cold, one at a time."""
    place.make_cold()
    chance = random.Random(77)
    seconds, count = 0.0, 0
    descriptor = os.open(place.large, os.O_RDONLY)
    while count < sizes.random_operations and seconds < RANDOM_SECONDS:
        block, inside = chance.randrange(sizes.large_mib), chance.randrange(MIB // SMALL_BYTES) * SMALL_BYTES
        start = clock()
        found = os.pread(descriptor, SMALL_BYTES, block * MIB + inside)
        seconds += clock() - start
        _expect(found, _block(block)[inside : inside + SMALL_BYTES], f"{place.large}, random read {count}")
        count += 1
    os.close(descriptor)
    return count, seconds


def random_writes(place: Place, sizes: Sizes) -> tuple[float, float]:
    """4 KiB at random places of the large file, each followed by fsync; read back from cold afterwards, untimed."""
    chance = random.Random(78)
    written: dict[int, int] = {}
    seconds = 0.0
    descriptor = os.open(place.large, os.O_WRONLY)
    while len(written) < sizes.random_operations and seconds < RANDOM_SECONDS:
        position = chance.randrange(sizes.large_mib * MIB // SMALL_BYTES) * SMALL_BYTES
        if position in written:
            continue
        data = _small(len(written))
        start = clock()
        os.pwrite(descriptor, data, position)
        os.fsync(descriptor)
        seconds += clock() - start
        written[position] = len(written)
    os.close(descriptor)
    place.make_cold()
    descriptor = os.open(place.large, os.O_RDONLY)
    for position, number in written.items():
        _expect(os.pread(descriptor, SMALL_BYTES, position), _small(number), f"{place.large}, written at {position}")
    os.close(descriptor)
    place.large.unlink()
    return len(written), seconds


def _create(folder: Path, count: int, *, synced: bool) -> float:
    for number in range(FOLDERS):
        (folder / f"{number:02d}").mkdir(parents=True)
    contents = [_small(number) for number in range(count)]
    paths = [folder / f"{number % FOLDERS:02d}" / f"{number:05d}" for number in range(count)]
    start = clock()
    for path, data in zip(paths, contents, strict=True):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        _write(descriptor, data)
        if synced:
            os.fsync(descriptor)
        os.close(descriptor)
    return clock() - start


def creates(place: Place, sizes: Sizes) -> tuple[float, float]:
    """Files of 4 KiB in 20 folders: create, write, close. On the mount each is durable when close() returns."""
    return sizes.files, _create(place.tree, sizes.files, synced=False)


def synced_creates(place: Place, sizes: Sizes) -> tuple[float, float]:
    """The same with an fsync before each close, so that the plain folder promises as much."""
    return sizes.synced_files, _create(place.folder / "synced", sizes.synced_files, synced=True)


def _list(place: Place, sizes: Sizes) -> tuple[float, float]:
    start = clock()
    listed = subprocess.run(["ls", "-lR", place.tree], capture_output=True, check=True, timeout=600).stdout
    seconds = clock() - start
    rows = [line.split() for line in listed.splitlines() if line.startswith(b"-")]
    if len(rows) != sizes.files or any(int(row[4]) != SMALL_BYTES for row in rows):
        raise WrongContentError(f"{place.tree}: ls shows {len(rows)} files, not {sizes.files} of {SMALL_BYTES} bytes")
    return sizes.files + FOLDERS, seconds


def list_cold(place: Place, sizes: Sizes) -> tuple[float, float]:
    """`ls -lR` of those files from cold."""
    place.make_cold()
    return _list(place, sizes)


def read_small(place: Place, sizes: Sizes) -> tuple[float, float]:
    """Each of those files from cold: open, read, close."""
    place.make_cold()
    seconds = 0.0
    for number in range(sizes.files):
        path = place.tree / f"{number % FOLDERS:02d}" / f"{number:05d}"
        start = clock()
        descriptor = os.open(path, os.O_RDONLY)
        found = os.read(descriptor, 2 * SMALL_BYTES)
        os.close(descriptor)
        seconds += clock() - start
        _expect(found, _small(number), str(path))
    return sizes.files, seconds


STEPS: Final = (
    Step("write large file, fsync", "large", "MB", write_large),
    Step("read it, cold", "large", "MB", read_large),
    Step("4 KiB random reads, cold", "large", "reads", random_reads),
    Step("4 KiB random writes, each fsynced", "large", "writes", random_writes),
    Step("create 4 KiB files", "small", "files", creates),
    Step("create 4 KiB files, each fsynced", "small", "files", synced_creates),
    Step("ls -lR, cold", "small", "entries", list_cold),
    Step("ls -lR, warm", "small", "entries", _list),
    Step("read 4 KiB files, cold", "small", "files", read_small),
)
