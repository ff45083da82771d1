"""Work on many small files and on names."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Final

from bench.place import Place
from bench.steps.content import SMALL_BYTES, Sizes, Step, WrongContentError, clock, expect, small, write

FOLDERS: Final = 20
APPENDED_BYTES: Final = 100


def create(folder: Path, count: int, *, synced: bool) -> float:
    """Make small files in 20 folders of a new folder, and return the seconds spent on the files."""
    for number in range(FOLDERS):
        (folder / f"{number:02d}").mkdir(parents=True)
    contents = [small(number) for number in range(count)]
    paths = [small_path(folder, number) for number in range(count)]
    start = clock()
    for path, data in zip(paths, contents, strict=True):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        write(descriptor, data)
        if synced:
            os.fsync(descriptor)
        os.close(descriptor)
    return clock() - start


def small_path(folder: Path, number: int) -> Path:
    """Return the path of the small file with this number."""
    return folder / f"{number % FOLDERS:02d}" / f"{number:05d}"


def creates(place: Place, sizes: Sizes) -> tuple[float, float]:
    """Create, write and close files of 4 KiB in 20 folders. On our mount each is durable when close() returns."""
    return sizes.files, create(place.tree, sizes.files, synced=False)


def synced_creates(place: Place, sizes: Sizes) -> tuple[float, float]:
    """The same with an fsync before each close, so that all places promise as much."""
    return sizes.synced_files, create(place.folder / "synced", sizes.synced_files, synced=True)


def _list(place: Place, sizes: Sizes) -> tuple[float, float]:
    start = clock()
    listed = subprocess.run(["ls", "-lR", place.tree], capture_output=True, check=True, timeout=600).stdout
    seconds = clock() - start
    rows = [line.split() for line in listed.splitlines() if line.startswith(b"-")]
    if len(rows) != sizes.files or any(int(row[4]) != SMALL_BYTES for row in rows):
        raise WrongContentError(f"{place.tree}: ls shows {len(rows)} files, not {sizes.files} of {SMALL_BYTES} bytes")
    return sizes.files + FOLDERS, seconds


def list_cold(place: Place, sizes: Sizes) -> tuple[float, float]:
    """`ls -lR` of those files, cold."""
    place.make_cold()
    return _list(place, sizes)


def read_small(place: Place, sizes: Sizes) -> tuple[float, float]:
    """Open, read and close each of those files, cold."""
    place.make_cold()
    return sizes.files, read_all(place.tree, sizes.files)


def read_all(folder: Path, count: int) -> float:
    """Read small files and compare them; return the seconds spent reading, without the comparison."""
    seconds = 0.0
    for number in range(count):
        path = small_path(folder, number)
        start = clock()
        descriptor = os.open(path, os.O_RDONLY)
        found = os.read(descriptor, 2 * SMALL_BYTES)
        os.close(descriptor)
        seconds += clock() - start
        expect(found, small(number), str(path))
    return seconds


def appends(place: Place, sizes: Sizes) -> tuple[float, float]:
    """Append 100 bytes to a file and fsync it, again and again; read back cold afterwards, untimed."""
    path = place.folder / "log"
    records = [small(number)[:APPENDED_BYTES] for number in range(sizes.files // 4)]
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    start = clock()
    for record in records:
        write(descriptor, record)
        os.fsync(descriptor)
    seconds = clock() - start
    os.close(descriptor)
    place.make_cold()
    expect(path.read_bytes(), b"".join(records), str(path))
    return len(records), seconds


def renames(place: Place, sizes: Sizes) -> tuple[float, float]:
    """Rename each of those files within its folder."""
    paths = [small_path(place.tree, number) for number in range(sizes.files)]
    start = clock()
    for path in paths:
        path.rename(path.with_suffix(".renamed"))
    seconds = clock() - start
    expect(paths[-1].with_suffix(".renamed").read_bytes(), small(sizes.files - 1), str(paths[-1]))
    return len(paths), seconds


def make_and_remove_folders(place: Place, sizes: Sizes) -> tuple[float, float]:
    """Make many folders, then remove them all."""
    top = place.folder / "folders"
    top.mkdir()
    paths = [top / str(number) for number in range(sizes.files // 4)]
    start = clock()
    for path in paths:
        path.mkdir()
    for path in paths:
        path.rmdir()
    seconds = clock() - start
    top.rmdir()
    return 2 * len(paths), seconds


def unlinks(place: Place, sizes: Sizes) -> tuple[float, float]:
    """Remove those files."""
    paths = [small_path(place.tree, number).with_suffix(".renamed") for number in range(sizes.files)]
    start = clock()
    for path in paths:
        path.unlink()
    return len(paths), clock() - start


SMALL_STEPS: Final = (
    Step("create 4 KiB files", "small", "files", creates),
    Step("create 4 KiB files, each fsynced", "small", "files", synced_creates),
    Step("ls -lR, cold", "small", "entries", list_cold),
    Step("ls -lR, warm", "small", "entries", _list),
    Step("read 4 KiB files, cold", "small", "files", read_small),
    Step("append 100 bytes, each fsynced", "small", "appends", appends),
    Step("rename", "small", "files", renames),
    Step("mkdir, rmdir", "small", "folders", make_and_remove_folders),
    Step("unlink", "small", "files", unlinks),
)
