"""How cost grows: with the number of files in a namespace, with the size of a file, and with the length of the log.

Each table has a column for each size; a flat cost stays the same from column to column. There is one run, without
peers: the shape matters here, and the values include the machine's noise.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from bench import machine
from bench.place import Place
from bench.steps.content import MIB, Sizes, clock
from bench.steps.large import read_large, write_large
from rich.console import Console
from rich.table import Table
from support.mounts import Grid, Mount
from support.two_writers import fill

FILES: Final = (1_000, 10_000, 100_000)
FILE_MIB: Final = (1, 16, 256, 4096)
BATCHES: Final = (1_000, 10_000, 100_000)
PER_FOLDER: Final = 1_000
PROBES: Final = 200
"""Number of operations of each kind timed at each size."""
QUICK_PART: Final = 100


@dataclass(frozen=True)
class Point:
    """The cost of one operation at one size: wall-clock seconds, and processor seconds (servers and mount)."""

    operation: str
    size: int
    seconds: float
    cpu_s: float


def measure(results: Path, console: Console, *, quick: bool) -> Path:
    """Measure all three, show them, and return the content of the result file."""
    results.mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="growth-", dir=results)).resolve()
    facts = machine.describe(caches_dropped=machine.drop_caches())
    part = QUICK_PART if quick else 1
    try:
        tables = {
            "files in the namespace": list(_files(folder / "files", [size // part for size in FILES], console)),
            "MiB of a file": list(_sizes(folder / "sizes", [max(size // part, 1) for size in FILE_MIB], console)),
            "batches of the log": list(_batches(folder / "log", [size // part for size in BATCHES], console)),
        }
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    for title, points in tables.items():
        _show(console, title, points)
    file = results / f"{facts['when'].replace(':', '')}-growth.json"
    document = {"machine": facts, **{title: [asdict(point) for point in points] for title, points in tables.items()}}
    file.write_text(json.dumps(document, indent=1) + "\n")
    return file


class _Clock:
    """Times work on a grid: its duration, and the processor time of servers and mount."""

    def __init__(self, grid: Grid, mount: Mount) -> None:
        self._grid = grid
        self._mount = mount

    def _cpu(self) -> dict[int, float]:
        pids = [*(server.pid for server in self._grid.servers if server.is_running()), self._mount.pid]
        return machine.cpu_seconds(pids)

    def each(self, operation: str, size: int, work: Callable[[int], object], count: int) -> Point:
        """Return the mean of `count` runs of the work, which gets the number of the run."""
        before, start = self._cpu(), clock()
        for number in range(count):
            work(number)
        seconds = clock() - start
        cpu = machine.cpu_between(before, self._cpu())
        return Point(operation, size, round(seconds / count, 6), round(cpu / count, 6))

    def remount(self, size: int) -> Point:
        """Return how long a new mount takes to list its root."""
        self._mount.unmount()
        machine.drop_caches()
        start = clock()
        self._mount.mount()
        os.listdir(self._mount.path)  # noqa: PTH208 (what a user does first)
        seconds = clock() - start
        return Point("mount, list the root", size, round(seconds, 3), _used(self._mount.pid))

    def restart(self, size: int) -> Point:
        """Return how long a restarted server takes to answer."""
        server = self._grid.servers[1]
        server.terminate()
        start = clock()
        server.start()
        seconds = clock() - start
        return Point("start of a server", size, round(seconds, 3), _used(server.pid))


def _used(pid: int) -> float:
    """The processor seconds of a process that was just started."""
    return round(machine.cpu_seconds([pid]).get(pid, 0.0), 3)


def _files(folder: Path, sizes: list[int], console: Console) -> Iterator[Point]:
    with Grid(folder) as grid:
        mount = grid.mount(options=("-o", "durability=fsync"))  # filling is not timed
        timed = _Clock(grid, mount)
        there = 0
        for size in sizes:
            with console.status(f"{size:,} files"):
                while there < size:
                    last = mount.path / f"{there:07d}"
                    last.mkdir()
                    count = min(PER_FOLDER, size - there)
                    fill(last, "f", count)
                    there += count
            yield timed.remount(size)
            known = min(PROBES, sizes[0])
            yield from _names(timed, size, known, mount.path / f"{0:07d}", last)
            yield timed.restart(size)


def _names(timed: _Clock, size: int, count: int, first: Path, last: Path) -> Iterator[Point]:
    known = [first / f"f.{number}" for number in range(count)]
    new = [first / f"new-{size}-{number}" for number in range(PROBES)]
    other = [first / f"other-{size}-{number}" for number in range(PROBES)]
    yield timed.each("stat, cold", size, lambda n: known[n].stat(), len(known))
    yield timed.each("list a folder of 1,000", size, lambda _: list(last.iterdir()), 1)
    yield timed.each("create, write 100 bytes, fsync", size, lambda n: _create(new[n]), PROBES)
    yield timed.each("rename", size, lambda n: new[n].rename(other[n]), PROBES)
    yield timed.each("unlink", size, lambda n: other[n].unlink(), PROBES)


def _sizes(folder: Path, sizes: list[int], console: Console) -> Iterator[Point]:
    with Grid(folder) as grid:
        mount = grid.mount()
        timed = _Clock(grid, mount)
        for mib in sizes:
            with console.status(f"a file of {mib:,} MiB"):
                yield from _one_file(timed, Place("mount", mount.path, mount.remount), mib)


def _one_file(timed: _Clock, place: Place, mib: int) -> Iterator[Point]:
    wanted = Sizes(large_mib=mib, files=0, synced_files=0, random_operations=0, random_s=0)
    step = mib * MIB // PROBES
    yield timed.each("write, fsync", mib, lambda _: write_large(place, wanted), 1)
    place.make_cold()
    warm = Place(place.name, place.folder, lambda: None)
    yield timed.each("read, cold", mib, lambda _: read_large(warm, wanted), 1)
    descriptor = os.open(place.large, os.O_RDWR)
    yield timed.each("read 4 KiB", mib, lambda n: os.pread(descriptor, 4096, n * step), PROBES)
    yield timed.each("overwrite 4 KiB, fsync", mib, lambda n: _overwrite(descriptor, n * step), PROBES)
    os.close(descriptor)
    yield timed.each("truncate to nothing", mib, lambda _: os.truncate(place.large, 0), 1)


def _batches(folder: Path, sizes: list[int], console: Console) -> Iterator[Point]:
    with Grid(folder) as grid:
        mount = grid.mount()
        timed = _Clock(grid, mount)
        there = 0
        for size in sizes:
            with console.status(f"{size:,} batches"):
                _lengthen(mount.path / "log", there, size)
                there = size
            new = [mount.path / f"new-{size}-{number}" for number in range(PROBES)]
            yield timed.restart(size)
            yield timed.remount(size)
            yield timed.each("create, write 100 bytes, fsync", size, lambda n, new=new: _create(new[n]), PROBES)


def _lengthen(path: Path, first: int, last: int) -> None:
    """Lengthen the log: each fsync of a changed file is a batch."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
    for number in range(first, last):
        os.fchmod(descriptor, 0o644 if number % 2 else 0o600)
        os.fsync(descriptor)
    os.close(descriptor)


def _create(path: Path) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    os.write(descriptor, b"x" * 100)
    os.fsync(descriptor)
    os.close(descriptor)


def _overwrite(descriptor: int, position: int) -> None:
    os.pwrite(descriptor, time.time_ns().to_bytes(8, "big") * 512, position)
    os.fsync(descriptor)


def _show(console: Console, title: str, points: list[Point]) -> None:
    sizes = sorted({point.size for point in points})
    table = Table(title=f"Cost by {title}: milliseconds, and of processor time")
    table.add_column("operation")
    for size in sizes:
        table.add_column(f"{size:,}", justify="right")
    for operation in dict.fromkeys(point.operation for point in points):
        found = {point.size: point for point in points if point.operation == operation}
        cells = (f"{found[size].seconds * 1e3:,.1f}, {found[size].cpu_s * 1e3:,.1f}" for size in sizes if size in found)
        table.add_row(operation, *cells)
    console.print(table)
