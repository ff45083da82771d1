"""The servers' logs are repaired in the background by mounts, and by `dfc heal` while it runs; by no other command."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.daemons import eventually
from support.grid import VirtualClock
from support.servers import REPOSITORY
from support.stored_cluster import StoredCluster

from dfs_server.protocol.messages import Chosen
from dfsfuse.cli import session as sessions
from dfsfuse.cli.config import load_config
from dfsfuse.cli.dfc import app
from dfsfuse.cli.dfc.client import Client
from dfsfuse.cli.dfc.connection import Access
from dfsfuse.log import repairer
from dfsfuse.mount import options

CONFIG = REPOSITORY / "conf" / "dfc.yaml"


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StoredCluster]:
    """The cluster that every client in this process gets. Repairers check it all the time."""
    folder = tmp_path / "servers"
    folder.mkdir()
    found = StoredCluster(folder, VirtualClock())
    monkeypatch.setattr(sessions, "Cluster", lambda *_, **__: found)
    monkeypatch.setattr(repairer, "LOOK_EVERY_S", 0.001)
    monkeypatch.setattr(repairer, "LOOK_IDLE_EVERY_S", 0.001)
    yield found
    found.close_servers()


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Records the names of the threads that are started."""
    names: list[str] = []
    start = threading.Thread.start

    def noted(thread: threading.Thread) -> None:
        names.append(thread.name)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", noted)
    return names


def looks(cluster: StoredCluster) -> list[Chosen]:
    """The requests of repairers. A writer that reports a chosen batch is excluded, since it releases its lease with
    it."""
    return [request for request in cluster.sent() if isinstance(request, Chosen) and not request.let_go]


def test_a_command_of_dfc_repairs_nothing(
    cluster: StoredCluster, started: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("here").write_bytes(b"content")
    for command in (["put", "here", "there"], ["list"], ["get", "there", "back"], ["list", "-l"]):
        assert app.run(command, Client(lambda _: Access(CONFIG))) == 0, command
    assert Path("back").read_bytes() == b"content"
    assert started
    assert repairer.THREAD_NAME not in started
    assert looks(cluster) == []


def test_a_mount_repairs_until_it_is_closed(cluster: StoredCluster, started: list[str]) -> None:
    with sessions.open_for_mount(load_config(CONFIG), options.parse([], as_root=False)):
        assert started.count(repairer.THREAD_NAME) == 1
        eventually(lambda: bool(looks(cluster)))
    assert repairer.THREAD_NAME not in {thread.name for thread in threading.enumerate()}


def test_a_mount_that_sees_a_server_behind_repairs_at_once(
    cluster: StoredCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repairer, "LOOK_EVERY_S", 3600.0)
    monkeypatch.setattr(repairer, "LOOK_IDLE_EVERY_S", 3600.0)
    with sessions.open_for_mount(load_config(CONFIG), options.parse([], as_root=False)) as session:
        assert looks(cluster) == []
        session.log._on_lag()
        eventually(lambda: bool(looks(cluster)))


def test_healing_by_hand_repairs_while_it_runs(cluster: StoredCluster, started: list[str]) -> None:
    assert app.run(["heal"], Client(lambda _: Access(CONFIG))) == 0
    assert started.count(repairer.THREAD_NAME) == 1
    assert repairer.THREAD_NAME not in {thread.name for thread in threading.enumerate()}
