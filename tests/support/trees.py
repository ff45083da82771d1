"""Trees of files for tests, always made the same way and compared completely."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

INLINE_EDGE = 128 * 1024
SEGMENT_EDGE = 4 * 1024 * 1024


def content(size: int, seed: int | str = 0) -> bytes:
    """Return `size` bytes that are the same each time and differ for every seed."""
    return hashlib.shake_128(str(seed).encode()).digest(size)


def with_rotation(size: int, rotation: int) -> bytes:
    """Return content of this size whose MD5 is `rotation` modulo 4: the mission's x."""
    for seed in range(1000):
        data = content(size, f"{size}/{seed}")
        if rotation_of(data) == rotation:
            return data
    raise AssertionError("a thousand digests in a row missed one value of four")


def rotation_of(data: bytes) -> int:
    """x = MD5(content) mod 4, written down here independently of the code under test."""
    return int(hashlib.md5(data, usedforsecurity=False).hexdigest(), 16) % 4


def make_tree(root: Path, seed: str = "tree") -> None:
    """Make a few folders with files of all interesting sizes, links and odd names."""
    sizes = (
        0,
        1,
        5,
        4096,
        INLINE_EDGE - 1,
        INLINE_EDGE,
        INLINE_EDGE + 1,
        700_001,
        SEGMENT_EDGE,
        SEGMENT_EDGE + 3,
    )
    root.mkdir()
    for number, size in enumerate(sizes):
        folder = root / f"folder {number % 3}"
        folder.mkdir(exist_ok=True)
        (folder / f"file-{size}").write_bytes(content(size, f"{seed}/{number}"))
    for number in range(30):
        (root / "folder 1" / f"small-{number}").write_bytes(content(number * 97, f"{seed}/small/{number}"))
    (root / "link").symlink_to("folder 1/small-3")
    (root / "folder 2" / "new\nline").write_bytes(b"1")
    Path(os.fsdecode(os.fsencode(root) + b"/latin-1 \xe4")).write_bytes(b"2")


def entries(root: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Return every path below `root`, relative to it, sorted."""
    for folder, folders, files in os.walk(root):
        folders.sort()
        for name in sorted(folders + files):
            path = Path(folder, name)
            yield str(path.relative_to(root)), path.lstat()


def describe(root: Path) -> dict[str, tuple[object, ...]]:
    """Describe everything below `root` that a copy must preserve: kind, permissions, size, content or target."""
    found: dict[str, tuple[object, ...]] = {}
    for relative, status in entries(root):
        path = root / relative
        if stat.S_ISLNK(status.st_mode):
            found[relative] = ("link", path.readlink())
        elif stat.S_ISDIR(status.st_mode):
            found[relative] = ("folder", stat.S_IMODE(status.st_mode))
        else:
            data = path.read_bytes()
            assert len(data) == status.st_size, relative
            found[relative] = (
                "file",
                stat.S_IMODE(status.st_mode),
                len(data),
                hashlib.sha256(data).hexdigest(),
            )
    return found


def assert_same_tree(found: Path, expected: Path) -> None:
    """Compare two trees completely, and report the differences."""
    left, right = describe(found), describe(expected)
    different = sorted(path for path in left.keys() | right.keys() if left.get(path) != right.get(path))
    assert not different, [(path, left.get(path), right.get(path)) for path in different[:10]]
