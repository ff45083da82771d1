"""The cost of each binding alone: the same work with a no-op file system behind each (`bench.no_op`)."""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.steps.content import MIB, Sizes, clock
from support.mounts import environment, unmount

BINDINGS: Final = ("kernel", "fusepy")
READY_S: Final = 20.0
_TESTS: Final = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Cost:
    """A step with one binding: the median of the runs, per second."""

    step: str
    unit: str
    per_second: dict[str, float]


def _write(folder: Path, sizes: Sizes) -> float:
    block = bytes(MIB)
    descriptor = os.open(folder / "large", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    for _ in range(sizes.large_mib):
        os.write(descriptor, block)
    os.close(descriptor)
    return sizes.large_mib * MIB / 1e6


def _read(folder: Path, sizes: Sizes) -> float:
    descriptor = os.open(folder / "large", os.O_RDONLY)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    buffer = bytearray(MIB)
    size = 0
    while count := os.readv(descriptor, [buffer]):
        size += count
    os.close(descriptor)
    if size != sizes.large_mib * MIB:
        raise RuntimeError(f"{folder / 'large'}: {size} bytes were read")
    return size / 1e6


def _create(folder: Path, sizes: Sizes) -> float:
    for number in range(sizes.files):
        descriptor = os.open(folder / f"f{number}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        os.write(descriptor, b"x" * 4096)
        os.close(descriptor)
    return sizes.files


def _look(folder: Path, sizes: Sizes) -> float:
    """Look up names that the kernel does not know, so that each stat is a request."""
    for number in range(sizes.files):
        try:
            (folder / f"not there {number}").stat()
        except FileNotFoundError:
            continue
        raise RuntimeError("a file is there that nobody made")
    return sizes.files


_STEPS: Final[tuple[tuple[str, str, Callable[[Path, Sizes], float]], ...]] = (
    ("write 1 MiB at a time", "MB", _write),
    ("read 1 MiB at a time", "MB", _read),
    ("create, write 4 KiB, close", "files", _create),
    ("stat of a name that is not there", "calls", _look),
)


def measure(sizes: Sizes, runs: int) -> list[Cost]:
    """Run each step with each binding in turn, so that both see the same conditions."""
    found: dict[tuple[str, str], list[float]] = {}
    for _ in range(runs):
        with _served("kernel") as by_kernel, _served("fusepy") as by_fusepy:
            for name, _unit, step in _STEPS:
                for binding, folder in zip(BINDINGS, (by_kernel, by_fusepy), strict=True):
                    start = clock()
                    count = step(folder, sizes)
                    found.setdefault((name, binding), []).append(count / (clock() - start))
    return [
        Cost(name, f"{unit}/s", {binding: round(statistics.median(found[name, binding]), 1) for binding in BINDINGS})
        for name, unit, _step in _STEPS
    ]


@contextmanager
def _served(binding: str) -> Iterator[Path]:
    """Mount a no-op file system for the length of the block, whatever happens."""
    folder = Path(tempfile.mkdtemp(prefix=f"no-op-{binding}-"))
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.no_op", str(folder), binding],
        env=environment() | {"PYTHONPATH": os.pathsep.join((str(_TESTS), str(_TESTS.parent)))},
        cwd=_TESTS,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        if process.stdout.readline().strip() != "mounted":
            raise RuntimeError(f"the no-op file system cannot be mounted with binding={binding}")
        yield folder
    finally:
        unmount(folder)
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(READY_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()
        folder.rmdir()
