"""Any one server may die, hang or lose its disk at any moment: no acknowledged byte is lost, and work goes on.

Four real servers, a real mount, real signals. Every wait has a deadline.
"""

from __future__ import annotations

import sqlite3
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
from support.flushed import flush
from support.mounts import USER, Grid, Mount, eventually, within
from support.pieces_on_disk import large_piece_files
from support.trees import assert_same_tree, content, make_tree

from dfsfuse.namespace.map.runs import RUNS

pytestmark = pytest.mark.integration

DEADLINE_S = 60.0
NO_PAUSE_S = 8.0
"""Limit for one operation just after a server has gone: a short deadline, on a machine that may be busy."""


@pytest.fixture
def grid(tmp_path: Path) -> Iterator[Grid]:
    with Grid(tmp_path / "grid") as grid:
        yield grid


@pytest.fixture
def source(tmp_path: Path) -> Path:
    make_tree(tmp_path / "source")
    return tmp_path / "source"


def run(*command: str | Path) -> None:
    """Run a program, which must succeed without output."""
    done = subprocess.run(command, capture_output=True, timeout=DEADLINE_S, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b""), command


def check_mount(mount: Mount, name: str) -> None:
    """Check that the mount works: write, read, list, rename and remove something."""
    folder = mount.path / name
    folder.mkdir()
    for size in (10, 300_000):
        (folder / "f").write_bytes(content(size, name))
        assert (folder / "f").read_bytes() == content(size, name)
    (folder / "f").rename(folder / "g")
    assert [path.name for path in folder.iterdir()] == ["g"]
    (folder / "g").unlink()
    folder.rmdir()


def test_a_large_folder_is_listed_by_a_new_mount_without_a_server(grid: Grid) -> None:
    """The mount checks which files are complete with an empty cache, for more files than an operation has runs."""
    mount = grid.mount()
    folder = mount.path / "many"
    folder.mkdir()
    wanted = [f"f{number:03}" for number in range(RUNS + 50)]
    for name in wanted:
        (folder / name).write_text(name)
    mount.unmount()
    with grid.without(2):
        mount.mount()
        listed = within(NO_PAUSE_S, "list the folder", lambda: sorted(path.name for path in folder.iterdir()))
        assert listed == wanted


def test_a_tree_is_copied_while_servers_are_killed_in_turn(grid: Grid, source: Path) -> None:
    mount = grid.mount()
    for server in grid.servers:
        target = mount.path / f"copy while {server.name} dies"
        with subprocess.Popen(["cp", "-r", source, target], stderr=subprocess.PIPE) as copy:
            eventually(target.is_dir, "the copy has begun")
            server.kill()
            _, said = copy.communicate(timeout=DEADLINE_S)
            assert (copy.returncode, said) == (0, b"")
        run("diff", "-r", "--no-dereference", source, target)
        server.start()
    mount.remount()
    for server in grid.servers:
        assert_same_tree(mount.path / f"copy while {server.name} dies", source)


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_everything_works_with_one_server_dead(grid: Grid, source: Path, number: int) -> None:
    """Both for a mount that saw the server die, and for one that never saw it alive."""
    mount = grid.mount()
    run("cp", "-r", source, mount.path / "before")
    with grid.without(number):
        within(NO_PAUSE_S, "work just after a server died", lambda: check_mount(mount, "new"))
        run("cp", "-r", source, mount.path / "during")
        mount.remount()
        run("diff", "-r", "--no-dereference", source, mount.path / "before")
        run("diff", "-r", "--no-dereference", source, mount.path / "during")
        check_mount(mount, "newer")
    other = number % 4 + 1
    with grid.without(other):
        mount.remount()
        run("diff", "-r", "--no-dereference", source, mount.path / "during")


def test_a_large_file_is_written_and_read_while_a_server_dies(grid: Grid, tmp_path: Path) -> None:
    mount = grid.mount()
    data = content(48 << 20)
    with (mount.path / "large").open("wb", buffering=0) as file:
        for start in range(0, len(data), 1 << 20):
            if start == 20 << 20:
                grid.servers[3].kill()
            within(NO_PAUSE_S, "a write of 1 MiB", partial(file.write, data[start : start + (1 << 20)]))
    grid.servers[3].start()
    mount.remount()
    with (mount.path / "large").open("rb", buffering=0) as file:
        for start in range(0, len(data), 1 << 20):
            if start == 20 << 20:
                grid.servers[1].kill()
            found = within(NO_PAUSE_S, "a read of 1 MiB", partial(file.read, 1 << 20))
            assert found == data[start : start + (1 << 20)], start


def test_a_hung_server_costs_one_short_deadline_once(grid: Grid, source: Path) -> None:
    mount = grid.mount()
    run("cp", "-r", source, mount.path / "before")
    mount.remount()
    grid.servers[2].freeze()
    try:
        within(
            NO_PAUSE_S,
            "a first write with a hung server",
            lambda: (mount.path / "f").write_bytes(b"x" * 500_000),
        )
        start = time.monotonic()
        for number in range(20):
            (mount.path / f"f{number}").write_bytes(content(5000, number))
        within(30, "reading all with a hung server", lambda: assert_same_tree(mount.path / "before", source))
        assert time.monotonic() - start < 30
    finally:
        grid.servers[2].thaw()
    mount.remount()
    assert_same_tree(mount.path / "before", source)
    assert [(mount.path / f"f{number}").read_bytes() for number in range(20)] == [content(5000, n) for n in range(20)]


def applied(grid: Grid) -> list[tuple[int, bytes]]:
    """Return the last slot that each server has applied, and its digest."""
    found = []
    for root in grid.roots().values():
        flush(root, USER)
        with closing(sqlite3.connect(f"file:{root / USER / 'namespace.db'}?mode=ro", uri=True)) as database:
            found += database.execute("SELECT applied, digest FROM state").fetchall()
    return found


def test_a_server_that_comes_back_empty_is_brought_up_to_date(grid: Grid, source: Path) -> None:
    mount = grid.mount()
    run("cp", "-r", source, mount.path / "tree")
    grid.servers[1].wipe()
    run("diff", "-r", "--no-dereference", source, mount.path / "tree")
    mount.remount()
    run("diff", "-r", "--no-dereference", source, mount.path / "tree")
    rounds = iter(range(1000))

    def caught_up() -> bool:
        (mount.path / f"after-{next(rounds)}").write_bytes(b"new")
        slots = [slot for slot, _ in applied(grid)]
        return len(slots) == 4 and slots[0] >= max(slots) - 1

    eventually(caught_up, "the empty server has the log")
    with grid.without(3):  # so that the other server is needed for the quorum, and must know everything
        check_mount(mount, "with the empty one")
        names = {path.name for path in (mount.path / "tree").iterdir()}
        assert names == {path.name for path in source.iterdir()}
    grid.servers[2].kill()
    mount.remount()
    assert {path.name for path in (mount.path / "tree").iterdir()} == names
    check_mount(mount, "with the empty one, anew")


def test_flipped_bits_and_cut_files_are_never_shown(grid: Grid) -> None:
    mount = grid.mount()
    data = content(9 << 20)
    (mount.path / "f").write_bytes(data)
    mount.unmount()
    for server in grid.servers:
        originals = {path: path.read_bytes() for path in large_piece_files(server.root, USER)}
        assert originals
        for number, (path, raw) in enumerate(originals.items()):
            damaged = raw[: len(raw) // 2] if number % 3 == 0 else raw[:-5] + bytes([raw[-5] ^ 1]) + raw[-4:]
            path.write_bytes(damaged)
        mount.mount()
        assert (mount.path / "f").read_bytes() == data, server.name
        assert [path.name for path in mount.path.iterdir()] == ["f"]
        mount.unmount()
        for path, raw in originals.items():
            path.write_bytes(raw)


def _has(items: dict[str, bytes], count: int) -> bool:
    return len(items) >= count


def test_what_was_acknowledged_survives_a_kill_of_all_servers_at_once(grid: Grid) -> None:
    mount = grid.mount()
    acknowledged: dict[str, bytes] = {}
    for turn in range(3):

        def write_until_it_fails(turn: int = turn) -> None:
            for number in range(10_000):
                name, data = f"{turn}-{number}", content(3000 + number * 7919 % 200_000, f"{turn}/{number}")
                try:
                    (mount.path / name).write_bytes(data)
                except OSError:
                    return
                acknowledged[name] = data

        enough = len(acknowledged) + 15
        writer = threading.Thread(target=write_until_it_fails, daemon=True)
        writer.start()
        eventually(partial(_has, acknowledged, enough), "fifteen writes are acknowledged")
        for server in grid.servers:
            server.kill()
        writer.join(DEADLINE_S)
        assert not writer.is_alive()
        for server in grid.servers:
            server.start()
        mount.remount()
        listed = {path.name for path in mount.path.iterdir()}
        assert acknowledged.keys() <= listed
        for name, data in acknowledged.items():
            assert (mount.path / name).read_bytes() == data, name
