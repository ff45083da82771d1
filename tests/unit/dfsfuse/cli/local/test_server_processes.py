"""A pid file is trusted only if the process that it names is the server. test_mount.py uses real servers
(`--local`)."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from dfs_server.server_folder import ServerFolder
from dfsfuse.cli.local import server_processes
from dfsfuse.cli.local.server_processes import ServerProcess, ServerStartError


def process(folder: Path, port: int = 1) -> ServerProcess:
    return ServerProcess(folder / "DFS1", port, folder / "dfs.yaml", folder / "run")


def test_a_pid_of_another_process_is_not_believed(tmp_path: Path) -> None:
    server = process(tmp_path)
    server.run_folder.mkdir()
    for text in (str(os.getpid()), "999999999", "", "x"):
        server.pid_file.write_text(text)
        assert server.running_pid() is None


def test_stopping_what_does_not_run(tmp_path: Path) -> None:
    server = process(tmp_path)
    server.run_folder.mkdir()
    server.pid_file.write_text(str(os.getpid()))
    assert server_processes.stop([server]) == []
    assert not server.pid_file.exists()


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        server = process(tmp_path, taken.getsockname()[1])
        with pytest.raises(ServerStartError, match="something else listens"):
            server_processes.start([server])
    assert not server.pid_file.exists()


def test_a_server_that_was_started_by_hand_is_not_something_else(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        server = process(tmp_path, taken.getsockname()[1])
        with ServerFolder.open(server.root), pytest.raises(ServerStartError, match="DFS1 is already running"):
            server_processes.start([server])
    assert not server.pid_file.exists()


def test_a_server_that_does_not_start_is_quoted(tmp_path: Path) -> None:
    (tmp_path / "dfs.yaml").write_text("users: 7\n")
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port = reserved.getsockname()[1]
    server = process(tmp_path, port)
    with pytest.raises(ServerStartError, match=r"DFS1 did not start: .*users"):
        server_processes.start([server])
    assert server.running_pid() is None
