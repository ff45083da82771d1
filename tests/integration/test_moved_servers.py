"""A server moves to another address while a mount runs: the mount learns that from its config, on a signal or because
the server is missing, and uses the new address without being mounted again."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.mounts import Grid, Mount, eventually
from support.ports import free_ports
from support.trees import content

pytestmark = pytest.mark.integration

SOON_S = 30.0


@pytest.fixture
def grid(tmp_path: Path) -> Iterator[Grid]:
    with Grid(tmp_path / "grid") as grid:
        yield grid


def move(grid: Grid, number: int) -> None:
    """Stop the server, start it on another port, and change the clients' config."""
    server = grid.servers[number]
    server.kill()
    (server.port,) = free_ports(1)
    server.start()
    grid.servers.write_client_config(grid.folder)


def says(mount: Mount, text: str) -> bool:
    return text in mount.log.read_text()


@pytest.mark.parametrize("binding", ["kernel", "fusepy"])
def test_a_signal_makes_a_mount_read_its_config_again(grid: Grid, binding: str) -> None:
    mount = grid.mount(options=("-o", f"binding={binding}"))
    (mount.path / "f").write_bytes(content(300_000))
    move(grid, 2)
    os.kill(mount.pid, signal.SIGHUP)
    eventually(lambda: says(mount, "was read again (SIGHUP): DFS2 is now at 127.0.0.1:"), "the new address", SOON_S)
    eventually(lambda: says(mount, f"DFS2 (127.0.0.1:{grid.servers[2].port}) answers again"), "it is used", SOON_S)
    with grid.without(3):
        (mount.path / "g").write_bytes(content(300_000, "g"))  # makes DFS2 necessary
        assert (mount.path / "f").read_bytes() == content(300_000)
    assert (mount.path / "g").read_bytes() == content(300_000, "g")
    assert mount.unmount() == 0


def test_a_server_that_is_missing_makes_a_mount_look_and_another_disk_is_noted_and_filled(grid: Grid) -> None:
    mount = grid.mount()
    (mount.path / "f").write_bytes(content(300_000))
    server = grid.servers[2]
    server.kill()
    shutil.rmtree(server.root)
    grid.client_config.write_text(grid.client_config.read_text().replace("DFS2", "DFS7"))
    eventually(lambda: says(mount, "only their addresses may change"), "a config that is wrong is refused", SOON_S)
    (server.port,) = free_ports(1)
    server.start()
    grid.servers.write_client_config(grid.folder)
    eventually(lambda: says(mount, "DFS2 has another disk than before"), "the new machine is met", SOON_S)
    eventually(lambda: b"any one server may fail" in grid.dfc("status").stdout, "it is filled", SOON_S)
    with grid.without(3):
        assert (mount.path / "f").read_bytes() == content(300_000)
