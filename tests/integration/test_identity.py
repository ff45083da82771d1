"""Which server is which: a config or folder that contradicts the namespace's record is refused before any harm is
done."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from support.mounts import USER, Grid, eventually
from support.pieces_on_disk import large_piece_files
from support.trees import content

pytestmark = pytest.mark.integration

WRONG_SERVER = 5


@pytest.fixture
def grid(tmp_path: Path) -> Iterator[Grid]:
    with Grid(tmp_path / "grid") as grid:
        yield grid


def change_config(grid: Grid, change: Callable[[list[dict[str, object]]], None]) -> None:
    config = yaml.safe_load(grid.client_config.read_text())
    change(config["servers"])
    grid.client_config.write_text(yaml.safe_dump(config))


def refusal(grid: Grid) -> str:
    done = grid.dfc("list")
    assert done.returncode == WRONG_SERVER, (done.returncode, done.stderr)
    assert done.stdout == b""
    return done.stderr.decode()


def test_a_config_that_differs_is_refused_with_what_to_change(grid: Grid, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(content(600_000))
    assert grid.dfc("put", tmp_path / "f", "f").returncode == 0
    good = grid.client_config.read_text()

    def swap_lines(servers: list[dict[str, object]]) -> None:
        servers[0], servers[2] = servers[2], servers[0]

    def swap_addresses(servers: list[dict[str, object]]) -> None:
        servers[0]["port"], servers[2]["port"] = servers[2]["port"], servers[0]["port"]

    change_config(grid, swap_lines)
    assert "lists the servers as DFS3, DFS2, DFS1, DFS4, and this namespace is on DFS1, DFS2, DFS3, DFS4" in refusal(
        grid
    )
    grid.client_config.write_text(good)
    change_config(grid, swap_addresses)
    assert "name or address of item" in refusal(grid)
    grid.client_config.write_text(good)
    assert grid.dfc("get", "f", tmp_path / "back").returncode == 0
    assert (tmp_path / "back").read_bytes() == content(600_000)


def test_a_copied_folder_is_not_used(grid: Grid, tmp_path: Path) -> None:
    """DFS1's folder was copied to create a DFS3 quickly, and even the name in it was changed. The server itself refuses
    to serve such a user; tests/unit/dfsfuse/net tests how a client reports two servers with one identity."""
    (tmp_path / "f").write_bytes(content(600_000))
    assert grid.dfc("put", tmp_path / "f", "f").returncode == 0
    one, three = grid.servers[1], grid.servers[3]
    three.kill()
    shutil.rmtree(three.root)
    shutil.copytree(one.root, three.root)
    marker = json.loads((three.root / "server.json").read_text())
    (three.root / "server.json").write_text(json.dumps(marker | {"name": "DFS3"}))
    three.start()
    assert not _answers(grid, 3)
    assert grid.dfc("get", "f", tmp_path / "back").returncode == 0
    assert (tmp_path / "back").read_bytes() == content(600_000)
    three.wipe()
    eventually(lambda: _answers(grid, 3), "on an empty folder it is taken in", 60)


def _answers(grid: Grid, number: int) -> bool:
    servers = json.loads(grid.dfc("status", "--json").stdout)["servers"]
    return bool(servers[number - 1]["answers"])


def test_a_server_with_a_new_disk_is_taken_in_and_noted(grid: Grid) -> None:
    mount = grid.mount()
    (mount.path / "f").write_bytes(content(300_000))
    grid.servers[2].wipe()
    eventually(lambda: "DFS2 has another disk than before" in mount.log.read_text(), "the new disk is noticed")
    assert (mount.path / "f").read_bytes() == content(300_000)
    mount.remount()
    assert mount.log.read_text().count("DFS2 has another disk than before") == 1


def test_a_server_that_sends_wrong_bytes_is_named(grid: Grid, tmp_path: Path) -> None:
    data = content(3_000_000)
    (tmp_path / "f").write_bytes(data)
    assert grid.dfc("put", tmp_path / "f", "f").returncode == 0
    assert b"wrong answers" not in grid.dfc("status").stdout
    for piece in large_piece_files(grid.servers[2].root, USER):
        raw = piece.read_bytes()
        piece.write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]))
    assert grid.dfc("get", "f", tmp_path / "back").returncode == 0
    assert (tmp_path / "back").read_bytes() == data
    status = grid.dfc("status")
    assert b"DFS2 gave wrong answers (" in status.stdout, status
    servers = json.loads(grid.dfc("status", "--json").stdout)["servers"]
    assert [server["name"] for server in servers if "wrong_answers" in server] == ["DFS2"]
    assert "of segment" in servers[1]["wrong_answers"]["what"]
