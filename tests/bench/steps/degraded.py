"""The behaviour just after one server was killed. Only for places that can lose one, and last of all."""

from __future__ import annotations

import os
from typing import Final

from bench.place import Place
from bench.steps.content import MIB, SECONDS, Sizes, Step, block, clock, expect, read, write
from bench.steps.small import create, read_all

READS: Final = 7
WRITES: Final = 8


def first_operations(place: Place, sizes: Sizes) -> tuple[float, float]:
    """Seven reads of 1 MiB across the large file and eight durable small files, right after the kill."""
    mib = sizes.large_mib // 4
    descriptor = os.open(place.large, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    for number in range(mib):
        write(descriptor, block(number))
    os.fsync(descriptor)
    os.close(descriptor)
    create(place.folder / "before", sizes.synced_files, synced=True)
    place.make_cold()
    assert place.stop_a_server is not None
    place.stop_a_server()
    start = clock()
    descriptor = os.open(place.large, os.O_RDONLY)
    for number in range(0, mib, max(mib // READS, 1)):
        os.lseek(descriptor, number * MIB, os.SEEK_SET)
        expect(read(descriptor, MIB), block(number), f"{place.large}, MiB {number}")
    os.close(descriptor)
    create(place.folder / "just-after", WRITES, synced=True)
    return 1, clock() - start


def read_small(place: Place, sizes: Sizes) -> tuple[float, float]:
    """Read small files that were made before. They are cold, except for caches that only a remount would empty."""
    return sizes.synced_files, read_all(place.folder / "before", sizes.synced_files)


def create_small(place: Place, sizes: Sizes) -> tuple[float, float]:
    """Create small files, each with an fsync."""
    return sizes.synced_files, create(place.folder / "after", sizes.synced_files, synced=True)


DEGRADED_STEPS: Final = (
    Step("one server killed: first operations", "degraded", SECONDS, first_operations),
    Step("one server down: read 4 KiB files", "degraded", "files", read_small),
    Step("one server down: create 4 KiB files, each fsynced", "degraded", "files", create_small),
)
