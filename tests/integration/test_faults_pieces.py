"""The mission's table, on the disks: which server holds which piece of a file, compared byte by byte."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.mounts import USER, Grid
from support.pieces_on_disk import TABLE, cut, holders
from support.trees import INLINE_EDGE, SEGMENT_EDGE, content, rotation_of, with_rotation

pytestmark = pytest.mark.integration

SIZES = (4, 5, 1001, INLINE_EDGE, INLINE_EDGE + 1, 1_000_003, SEGMENT_EDGE)


def expected(x: int, segment: bytes) -> dict[str, set[int]]:
    lengths = {number: len(piece) for number, piece in cut(segment).items()}
    return {name: {number for number in pair if lengths[number]} for name, pair in TABLE[x].items()}


def test_files_of_each_rotation_are_where_the_table_says(grid: Grid, tmp_path: Path) -> None:
    """Both for `dfc put` and for the mount."""
    files = {f"{size}-{x}": with_rotation(size, x) for size in SIZES for x in range(4)}
    mount = grid.mount()
    for number, (name, data) in enumerate(files.items()):
        if number % 2:
            (mount.path / name).write_bytes(data)
        else:
            (tmp_path / name).write_bytes(data)
    paths = sorted(tmp_path.iterdir())
    for path in paths:
        done = grid.dfc("put", path, path.name)
        assert done.returncode == 0, done.stderr
    for name, data in files.items():
        assert (mount.path / name).read_bytes() == data
    assert mount.unmount() == 0
    found = {name: holders(grid.roots(), USER, data) for name, data in files.items() if len(data) > 1000}
    assert found == {name: expected(rotation_of(files[name]), files[name]) for name in found}
    tiny = {name: holders(grid.roots(), USER, data) for name, data in files.items() if len(data) <= 1000}
    for name, places in tiny.items():  # pieces of one byte may equal those of other files
        wanted = expected(rotation_of(files[name]), files[name])
        assert all(wanted[server] <= places[server] for server in wanted), name


def test_a_long_file_turns_the_ring_with_each_segment(grid: Grid) -> None:
    """x is the first segment's; segment i is placed as in the table for (x + i) mod 4."""
    mount = grid.mount("long")
    data = content(5 * SEGMENT_EDGE + 12345, "long")
    (mount.path / "long").write_bytes(data)
    assert mount.unmount() == 0
    x = rotation_of(data[:SEGMENT_EDGE])
    for index in range(6):
        segment = data[index * SEGMENT_EDGE : (index + 1) * SEGMENT_EDGE]
        assert holders(grid.roots(), USER, segment) == expected((x + index) % 4, segment), index


def test_with_a_server_down_each_piece_is_still_on_two_disks(grid: Grid) -> None:
    mount = grid.mount("handoff")
    files = {f"handoff-{size}-{x}": with_rotation(size + 7, x) for size in (5000, 900_000) for x in range(4)}
    with grid.without(2):
        for name, data in files.items():
            (mount.path / name).write_bytes(data)
        assert mount.unmount() == 0  # before the server is back, since then they would move home
    for name, data in files.items():
        places = holders(grid.roots(), USER, data)
        assert places["DFS2"] == set(), name
        for piece in (1, 2, 3, 4):
            assert sum(piece in held for held in places.values()) >= 2, (name, piece)
