"""A forked program behaves like a started one (`support.forked`)."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest
from support import forked
from support.mounts import environment, program
from support.servers import REPOSITORY, ForkedServer, write_server_config

DEADLINE_S = 60.0


@pytest.mark.parametrize("arguments", [["--version"], ["no such command"], ["--config", "missing.yaml", "list"]])
def test_a_forked_command_has_the_output_and_exit_status_of_a_started_one(tmp_path: Path, arguments: list[str]) -> None:
    variables = environment() | {"HOME": str(tmp_path)}
    found = forked.run(forked.DFC, arguments, folder=tmp_path, environment=variables, timeout_s=DEADLINE_S)
    started = subprocess.run(
        [*program("dfc"), *arguments], capture_output=True, cwd=tmp_path, env=variables, timeout=DEADLINE_S, check=False
    )
    assert (found.returncode, found.stdout, found.stderr) == (started.returncode, started.stdout, started.stderr)


def test_each_forked_program_has_its_own_output_and_exit_status(tmp_path: Path) -> None:
    config = write_server_config(tmp_path)
    one, other = (ForkedServer(tmp_path / name, config, 0) for name in ("DFS1", "DFS2"))
    one.start()
    other.start()
    assert one.ready_line.startswith("DFS1 ready on 127.0.0.1:")
    one.freeze()
    one.thaw()
    one.kill()
    assert not one.is_running() and other.is_running()
    assert other.terminate() == 0
    assert "stopping" in other.stderr() and "stopping" not in one.stderr()
    one.close()
    other.close()


def test_the_exit_status_tells_a_usage_error_from_a_signal(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as log:
        running = forked.start(forked.SERVER, ["--nonsense"], stderr=log.fileno(), folder=REPOSITORY)
        assert running.wait(DEADLINE_S) == 2
        running.kill()
        assert running.stdout is not None and running.stdout.read() == b""
        running.stdout.close()
        config = write_server_config(tmp_path)
        server = ForkedServer(tmp_path / "DFS1", config, 0)
        server.start()
        assert server._process is not None
        server._process.send_signal(signal.SIGKILL)
        assert server.wait() == -signal.SIGKILL
        server.close()
