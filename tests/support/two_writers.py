"""Measures how much several mounts get done that change names without pause at the same time."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

SLICE_S = 1.0
STOCK: Final = 8000
"""Number of files for each writer that removes: more than a single one removes in its time."""
SMALL: Final = bytes(100)


def make_folder(path: Path) -> None:
    path.mkdir()


def create_file(path: Path) -> None:
    path.write_bytes(SMALL)


def remove_file(path: Path) -> None:
    """Remove one of the files that `fill` has made."""
    path.unlink()


def fill(folder: Path, prefix: str, count: int) -> None:
    """Make many empty files, without waiting for each."""
    for number in range(count):
        os.mknod(folder / f"{prefix}.{number}")


def write_for(folders: Sequence[Path], operation: Callable[[Path], None] = make_folder) -> list[float]:
    """Run a thread in each of these folders that applies the operation to one name after another without pause. Returns
    how often each does so in a second, counted once each has made a folder. They may be the same folder in several
    mounts."""
    stop = threading.Event()
    begin = threading.Barrier(len(folders) + 1, timeout=120)
    done = [0] * len(folders)
    name = str(time.monotonic())
    stock = STOCK * len(folders) if operation is remove_file else 0

    def write(who: int) -> None:
        fill(folders[who], f"{name}.{who}", stock)
        (folders[who] / f"{name}.{who}").mkdir()
        begin.wait()
        while not stop.is_set() and not 0 < stock <= done[who]:
            operation(folders[who] / f"{name}.{who}.{done[who]}")
            done[who] += 1

    with ThreadPoolExecutor(len(folders)) as pool:
        writers = [pool.submit(write, who) for who in range(len(folders))]
        begin.wait()
        begun = time.monotonic()
        stop.wait(SLICE_S * len(folders))
        stop.set()
        for writer in writers:
            writer.result(30)
        lasted_s = time.monotonic() - begun
    return [count / lasted_s for count in done]
