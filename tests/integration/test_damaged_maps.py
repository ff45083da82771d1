"""Flipped bits and lost rows in a server's database: reads are still right, the server is named, and a mount gives it a
copy of the map that equals the others'."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.flushed import flush
from support.mounts import USER, Grid, eventually
from support.trees import assert_same_tree, content

from dfs_server.pieces.holdings import Holdings
from dfs_server.scrub.scrubber import Scrubber
from dfs_server.store.store import NamespaceStore

pytestmark = pytest.mark.integration

VICTIM = 2
MENDED_S = 40.0


@pytest.fixture
def grid(tmp_path: Path) -> Iterator[Grid]:
    with Grid(tmp_path / "grid") as grid:
        yield grid


@pytest.fixture
def source(grid: Grid, tmp_path: Path) -> Path:
    """A folder with forty files, which is also put on the servers."""
    folder = tmp_path / "source"
    folder.mkdir()
    for number in range(40):
        (folder / f"file-{number}").write_bytes(content(1000 + number, f"file {number}"))
    grid.dfc("put", "--recursive", folder, "tree")
    return folder


def spoil(grid: Grid, *statements: str) -> None:
    """Damage the database of one server as a bad disk would: without updating checksums."""
    flush(grid.servers[VICTIM].root, USER)
    with contextlib.closing(sqlite3.connect(grid.servers[VICTIM].root / USER / "namespace.db", timeout=20)) as database:
        for statement in statements:
            assert database.execute(statement).rowcount > 0, statement
        database.commit()


def map_of(root: Path) -> tuple[int, list[tuple[bytes, bytes]]]:
    """Return the slot and the items of a server's map, from its disk."""
    flush(root, USER)
    with contextlib.closing(sqlite3.connect(f"file:{root / USER / 'namespace.db'}?mode=ro", uri=True)) as database:
        database.execute("BEGIN")
        (slot,) = database.execute("SELECT applied FROM state").fetchone()
        return slot, database.execute("SELECT key, value FROM map ORDER BY key").fetchall()


def run_scrub(root: Path) -> None:
    """Run the scrub, which servers do once in thirty days, on the folder of a server that is not running."""
    folder = root / USER
    with contextlib.closing(NamespaceStore(folder, root.name)) as store:
        assert Scrubber(folder, Holdings(folder, store), store).run(0, 1e9, lambda _: False)


def all_maps_are_equal(grid: Grid) -> bool:
    maps = [map_of(root) for root in grid.roots().values()]
    return all(found == maps[0] for found in maps)


def damage_told(grid: Grid) -> dict[str, str]:
    """Return what `dfc status` says about the servers' databases."""
    servers = json.loads(grid.dfc("status", "--json").stdout)["servers"]
    return {server["name"]: server["damage"] for server in servers if server.get("damage")}


FLIP_ALL = (
    "UPDATE map SET value = CAST(substr(value, 1, length(value) - 1) || x'55' AS BLOB) "
    "WHERE substr(value, -1) <> x'55' AND length(value) > 1"
)


def test_flipped_bits_in_the_map_are_never_shown_and_the_map_is_copied_anew(grid: Grid, source: Path) -> None:
    spoil(grid, FLIP_ALL)
    fsck = grid.dfc("fsck")
    said = b"dfc: DFS2 was not checked: a row of the map is not what was written; ask another server\n"
    assert (fsck.returncode, fsck.stderr) == (14, said)
    for back in (source.parent / "back-1", source.parent / "back-2"):  # each run begins with a different server
        assert grid.dfc("get", "--recursive", "tree", back).returncode == 0
        assert_same_tree(source, back)
    mount = grid.mount()
    assert_same_tree(source, mount.path / "tree")
    (mount.path / "new").write_bytes(b"written meanwhile")
    eventually(lambda: "DFS2" in damage_told(grid), "dfc status names the server")
    eventually(lambda: all_maps_are_equal(grid), "the four maps are equal", MENDED_S)
    assert "(mended)" in damage_told(grid)["DFS2"]
    told = grid.dfc("status").stdout
    assert b"DFS2 has found damage in its database (a row of the map is not what was written (mended))" in told
    assert b"wrong answers" not in told  # the server itself says that it cannot tell
    # It serves again, without help.
    mount.unmount()
    with grid.without(1):
        assert grid.dfc("get", "--recursive", "tree", source.parent / "again").returncode == 0
        assert_same_tree(source, source.parent / "again")
    assert grid.dfc("fsck").returncode == 0


def test_lost_rows_are_found_by_the_scrub_and_come_back(grid: Grid, source: Path, tmp_path: Path) -> None:
    server = grid.servers[VICTIM]
    spoil(grid, "DELETE FROM map WHERE key IN (SELECT key FROM map WHERE key >= x'64' LIMIT 3)")
    assert not all_maps_are_equal(grid)
    server.kill()
    run_scrub(server.root)
    server.start()
    assert damage_told(grid) == {"DFS2": "rows of the map are missing or unexpected"}
    mount = grid.mount()
    eventually(lambda: all_maps_are_equal(grid), "the four maps are equal", MENDED_S)
    assert_same_tree(source, mount.path / "tree")


@pytest.mark.parametrize("statement", ["UPDATE state SET round = round + 1", "DELETE FROM state"])
def test_a_server_whose_promises_were_damaged_is_rebuilt(grid: Grid, source: Path, statement: str) -> None:
    server = grid.servers[VICTIM]
    server.kill()
    spoil(grid, statement)
    server.start()
    mount = grid.mount()
    (mount.path / "new").write_bytes(b"written meanwhile")
    assert_same_tree(source, mount.path / "tree")
    eventually(lambda: "(mended)" in damage_told(grid).get("DFS2", ""), "dfc status names the server")
    eventually(lambda: all_maps_are_equal(grid), "the four maps are equal", MENDED_S)


def test_a_damaged_batch_is_not_passed_on_to_a_server_that_missed_it(grid: Grid, source: Path) -> None:
    mount = grid.mount()
    with grid.without(3):
        for number in range(5):
            (mount.path / f"missed-{number}").write_bytes(b"by DFS3")
        mount.unmount()
        for number in (1, 2, 4):  # all servers that have the missed batches have a damaged log
            flush(grid.servers[number].root, USER)
            with contextlib.closing(sqlite3.connect(grid.servers[number].root / USER / "namespace.db")) as database:
                database.execute("UPDATE log SET batch = x'00' WHERE slot > (SELECT applied FROM state) - 3")
                database.commit()
    mount.mount()
    eventually(lambda: all_maps_are_equal(grid), "the four maps are equal", MENDED_S)
    assert (mount.path / "missed-3").read_bytes() == b"by DFS3"
