"""Starting and stopping `dfs-server` processes on this machine: for `dfsmount --local` and for `make run`.

Knows how to start a server (its folder, port, config), where its pid and log are kept, and how to tell that it serves.
A pid file is trusted only if the process with that number has the server's folder on its command line, since pids are
reused. Every wait has a deadline. No threads.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from dfs_server.shared import folder_lock
from dfsfuse.errors import DfsError

START_TIMEOUT_S = 15.0
STOP_TIMEOUT_S = 15.0


class ServerStartError(DfsError):
    """One of our own servers did not start."""

    exit_code = 6


@dataclass(frozen=True)
class ServerProcess:
    """One of our own servers: its location and how it is started. Whether it runs is checked each time, not
    remembered."""

    root: Path
    port: int
    config: Path
    run_folder: Path
    """The folder of `NAME.pid` and `NAME.log`."""
    host: str = "127.0.0.1"

    @property
    def pid_file(self) -> Path:
        return self.run_folder / f"{self.root.name}.pid"

    @property
    def log_file(self) -> Path:
        return self.run_folder / f"{self.root.name}.log"

    def command(self) -> list[str]:
        return [
            *(sys.executable, "-m", "dfs_server", os.fspath(self.root), str(self.port)),
            *("--host", self.host, "--config", os.fspath(self.config)),
        ]

    def running_pid(self) -> int | None:
        """The pid of the running server, or None."""
        try:
            pid = int(self.pid_file.read_text())
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except (OSError, ValueError):
            return None
        return pid if b"dfs_server" in words and os.fsencode(self.root) in words else None

    def is_outdated(self) -> bool:
        """Whether it runs with a different config than it would be started with now."""
        pid = self.running_pid()
        if pid is None:
            return False
        with suppress(OSError):
            return os.fsencode(self.config) not in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        return False

    def accepts(self) -> bool:
        """Whether something accepts connections on its port."""
        with suppress(OSError), socket.create_connection((self.host, self.port), timeout=1.0):
            return True
        return False


def start(servers: Sequence[ServerProcess], timeout_s: float = START_TIMEOUT_S) -> list[ServerProcess]:
    """Start those that are not running, in parallel, and wait until all accept connections. Returns the started ones.

    Raises `ServerStartError` with the last log line of one that did not start; then all those started here have been
    stopped.
    """
    idle = [server for server in servers if server.running_pid() is None]
    started: list[tuple[ServerProcess, subprocess.Popen[bytes]]] = []
    try:
        for server in idle:
            started.append((server, _spawn(server)))
        deadline = time.monotonic() + timeout_s
        for server, process in started:
            _wait_until_ready(server, process, deadline)
    except BaseException:
        stop([server for server, _ in started])
        raise
    return idle


def _spawn(server: ServerProcess) -> subprocess.Popen[bytes]:
    server.run_folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if server.accepts():
        taken = f"{server.host}:{server.port}"
        if folder_lock.is_held(server.root):
            raise ServerStartError(
                f"{server.root.name} is already running, but was not started by this command: stop it "
                f"first. `ss -ltnp 'sport = :{server.port}'` names its process."
            )
        raise ServerStartError(
            f"{server.root.name} cannot start: something else listens on {taken} already. "
            f"`ss -ltnp 'sport = :{server.port}'` says what."
        )
    with server.log_file.open("ab") as log:
        process = subprocess.Popen(
            server.command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    server.pid_file.write_text(f"{process.pid}\n")
    return process


def _wait_until_ready(server: ServerProcess, process: subprocess.Popen[bytes], deadline: float) -> None:
    while not server.accepts():
        if process.poll() is not None or time.monotonic() > deadline:
            why = _last_line(server.log_file)
            raise ServerStartError(
                f"{server.root.name} did not start: {why or 'it gave no reason'} (log: {server.log_file})"
            )
        time.sleep(0.02)
    process.returncode = 0  # it should outlive us; keeps the interpreter from warning that it still runs


def _last_line(file: Path) -> str:
    with suppress(OSError):
        lines = file.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else ""
    return ""


def stop(servers: Sequence[ServerProcess], timeout_s: float = STOP_TIMEOUT_S) -> list[ServerProcess]:
    """Stop those that run: SIGTERM to all, then SIGKILL to those that do not end in time. Returns the stopped ones."""
    ended = []
    handles: list[tuple[ServerProcess, int]] = []
    for server in servers:
        pid = server.running_pid()
        with suppress(ProcessLookupError):
            if pid is not None:
                handles.append((server, os.pidfd_open(pid)))
    try:
        for _, handle in handles:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(handle, signal.SIGTERM)
        deadline = time.monotonic() + timeout_s
        for server, handle in handles:
            if not select.select([handle], [], [], max(0.0, deadline - time.monotonic()))[0]:
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(handle, signal.SIGKILL)
            with suppress(ChildProcessError):  # not our child: another process started it
                os.waitid(os.P_PIDFD, handle, os.WEXITED)
            ended.append(server)
    finally:
        for _, handle in handles:
            os.close(handle)
        for server in servers:
            server.pid_file.unlink(missing_ok=True)
    return ended
