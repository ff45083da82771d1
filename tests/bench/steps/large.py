"""Work on one large file, and on four at once."""

from __future__ import annotations

import os
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from bench.place import Place
from bench.steps.content import (
    MIB,
    PRIME,
    SMALL_BYTES,
    Sizes,
    Step,
    block,
    block_ends,
    block_part,
    clock,
    expect,
    is_block,
    read,
    small,
    write,
)

THREADS: Final = 8
WRITERS: Final = 4
WRITERS_PART: Final = 16
"""Each of the writers writes the large file's size divided by this."""


def write_large(place: Place, sizes: Sizes) -> tuple[float, float]:
    """Write one file sequentially, 1 MiB at a time, and fsync it."""
    return _write_file(place.large, sizes.large_mib)


def _write_file(path: Path, mib: int) -> tuple[float, float]:
    blocks = [block(number) for number in range(PRIME)]
    seconds = 0.0
    start = clock()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    for number in range(mib):
        if number >= PRIME:
            seconds += clock() - start
            data = block(number)
            start = clock()
        else:
            data = blocks[number]
        write(descriptor, data)
    os.fsync(descriptor)
    os.close(descriptor)
    return mib * MIB / 1e6, seconds + clock() - start


def read_large(place: Place, sizes: Sizes) -> tuple[float, float]:
    """Read that file cold and sequentially, 1 MiB at a time. The time includes the comparison (0.1 ms per MiB), during
    which a file system that reads ahead can go on."""
    place.make_cold()
    ends = block_ends()
    start = clock()
    descriptor = os.open(place.large, os.O_RDONLY)
    for number in range(sizes.large_mib):
        found = read(descriptor, MIB)
        if not is_block(found, number, ends):
            expect(found, block(number), f"{place.large}, MiB {number}")
    os.close(descriptor)
    return sizes.large_mib * MIB / 1e6, clock() - start


def random_reads(place: Place, sizes: Sizes) -> tuple[float, float]:
    """Read 4 KiB at random places of the large file, cold, one at a time."""
    place.make_cold()
    return _read_randomly(place.large, sizes, seed=77)


def random_reads_by_threads(place: Place, sizes: Sizes) -> tuple[float, float]:
    """The same with eight threads at once. The time includes the comparison, which overlaps with other threads'
    reads."""
    place.make_cold()
    start = clock()
    with ThreadPoolExecutor(THREADS) as threads:
        runs = [threads.submit(_read_randomly, place.large, sizes, seed) for seed in range(THREADS)]
        count = sum(run.result()[0] for run in runs)
    return count, clock() - start


def _read_randomly(path: Path, sizes: Sizes, seed: int) -> tuple[float, float]:
    """Return the number of reads, and the seconds spent reading."""
    chance = random.Random(seed)
    seconds, count = 0.0, 0
    descriptor = os.open(path, os.O_RDONLY)
    while count < sizes.random_operations and seconds < sizes.random_s:
        number, inside = chance.randrange(sizes.large_mib), chance.randrange(MIB // SMALL_BYTES) * SMALL_BYTES
        start = clock()
        found = os.pread(descriptor, SMALL_BYTES, number * MIB + inside)
        seconds += clock() - start
        expect(found, block_part(number, inside, SMALL_BYTES), f"{path}, random read {count}")
        count += 1
    os.close(descriptor)
    return count, seconds


def random_writes(place: Place, sizes: Sizes) -> tuple[float, float]:
    """Write 4 KiB at random places of the large file, with one fsync at the end; read back cold afterwards, untimed."""
    return _write_randomly(place, sizes, seed=79, each_synced=False)


def synced_random_writes(place: Place, sizes: Sizes) -> tuple[float, float]:
    """The same, with an fsync after each write."""
    return _write_randomly(place, sizes, seed=78, each_synced=True)


def _write_randomly(place: Place, sizes: Sizes, *, seed: int, each_synced: bool) -> tuple[float, float]:
    chance = random.Random(seed)
    written: dict[int, int] = {}
    seconds = 0.0
    descriptor = os.open(place.large, os.O_RDWR)
    while len(written) < sizes.random_operations and seconds < sizes.random_s:
        position = chance.randrange(sizes.large_mib * MIB // SMALL_BYTES) * SMALL_BYTES
        if position in written:
            continue
        number = seed * sizes.random_operations + len(written)
        data = small(number)
        start = clock()
        os.pwrite(descriptor, data, position)
        if each_synced:
            os.fsync(descriptor)
        seconds += clock() - start
        written[position] = number
    start = clock()
    os.fsync(descriptor)
    seconds += clock() - start
    os.close(descriptor)
    place.make_cold()
    descriptor = os.open(place.large, os.O_RDONLY)
    for position, number in written.items():
        expect(os.pread(descriptor, SMALL_BYTES, position), small(number), f"{place.large}, written at {position}")
    os.close(descriptor)
    return len(written), seconds


def parallel_writes(place: Place, sizes: Sizes) -> tuple[float, float]:
    """Write four files at once with four threads, each as in `write_large`."""
    place.large.unlink()
    paths = [place.folder / f"large{number}" for number in range(WRITERS)]
    mib = sizes.large_mib // WRITERS_PART
    start = clock()
    with ThreadPoolExecutor(WRITERS) as threads:
        list(threads.map(lambda path: _write_file(path, mib), paths))
    seconds = clock() - start
    for path in paths:
        path.unlink()
    return WRITERS * mib * MIB / 1e6, seconds


LARGE_STEPS: Final = (
    Step("write large file, fsync", "large", "MB", write_large),
    Step("read it, cold", "large", "MB", read_large),
    Step("4 KiB random reads, cold", "large", "reads", random_reads),
    Step("4 KiB random reads by 8 threads, cold", "large", "reads", random_reads_by_threads),
    Step("4 KiB random writes, one fsync", "large", "writes", random_writes),
    Step("4 KiB random writes, each fsynced", "large", "writes", synced_random_writes),
    Step("4 writers of a file each", "large", "MB", parallel_writes),
)
