"""Real `dfs-server` processes for tests: started on free ports in a temporary folder, killed, frozen, wiped.

    with Servers(4) as servers:
        servers[1].kill()               # SIGKILL
        servers[2].freeze()             # SIGSTOP; thaw() goes on
        servers[1].start()              # again, on the same folder and port
        servers[3].wipe()               # kill it, empty its folder, start it
        client_config = servers.write_client_config(tmp_path)

Servers are numbered from 1, like DFS1..DFS4. Whatever the test does, processes are ended, always by their pid.
When the test fails, the servers' stderr is printed.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from support.ports import free_ports
from support.raw_client import RawClient

REPOSITORY = Path(__file__).resolve().parents[2]
USERS = {"alice": "alice-secret", "bob": "bob-secret"}
START_S = 20.0
STOP_S = 10.0


class ServerProcess:
    """A `dfs-server` process, its folder and its port, which stay the same when it is started again."""

    def __init__(self, root: Path, config: Path, port: int) -> None:
        self.name = root.name
        self.root = root
        self.port = port
        self.stderr_path = root.with_name(root.name + ".stderr")
        self.ready_line = ""
        self._config = config
        self._process: subprocess.Popen[str] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None, f"{self.name} is not running"
        return self._process.pid

    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def command_line(self) -> list[str]:
        """The command that `start` runs."""
        return command(self.root, self.port, self._config)

    def start(self) -> None:
        """Start it, and wait until it reports that it is ready."""
        self.launch()
        self.wait_until_ready()

    def launch(self) -> None:
        """Start it without waiting, so that several servers can start at the same time."""
        assert not self.is_running(), f"{self.name} is running already"
        self.close()
        with self.stderr_path.open("a") as stderr:
            self._process = subprocess.Popen(
                self.command_line(),
                stdout=subprocess.PIPE,
                stderr=stderr,
                stdin=subprocess.DEVNULL,
                text=True,
                cwd=REPOSITORY,
                start_new_session=True,
            )

    def wait_until_ready(self) -> None:
        """Wait until the launched server reports that it is ready."""
        assert self._process is not None, f"{self.name} is not running"
        self.ready_line = _first_line(self._process, START_S)
        if f"{self.name} ready on " not in self.ready_line:
            raise AssertionError(f"{self.name} did not start: {self.ready_line!r}\n{self.stderr()}")

    def kill(self) -> None:
        """kill -9, and wait until it is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(STOP_S)

    def terminate(self) -> int:
        """Send SIGTERM, and return the exit status."""
        assert self._process is not None, f"{self.name} is not running"
        self._process.terminate()
        return self.wait()

    def wait(self) -> int:
        """Wait until it has ended by itself, and return the exit status."""
        assert self._process is not None, f"{self.name} is not running"
        return self._process.wait(STOP_S)

    def freeze(self) -> None:
        """SIGSTOP: the server and its connections hang. All its threads have stopped when this returns."""
        os.kill(self.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, self.pid, os.WSTOPPED)

    def thaw(self) -> None:
        """SIGCONT."""
        os.kill(self.pid, signal.SIGCONT)

    def restart(self) -> None:
        """kill -9 and start again."""
        self.kill()
        self.start()

    def wipe(self) -> None:
        """Replace its disk by an empty one: kill it, empty the folder, start it again."""
        self.kill()
        shutil.rmtree(self.root)
        self.start()

    def connect(self, user: str = "alice") -> RawClient:
        """Return an authenticated raw client."""
        client = RawClient(self.port)
        try:
            client.authenticate(user, USERS[user])
        except BaseException:
            client.close()
            raise
        return client

    def stderr(self) -> str:
        with contextlib.suppress(FileNotFoundError):
            return self.stderr_path.read_text(errors="replace")
        return ""

    def close(self) -> None:
        """End it if it is running, and close its pipe."""
        if self._process is not None:
            self.kill()
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._process = None


def start_all(servers: Sequence[ServerProcess]) -> None:
    """Start servers at the same time, and wait until all are ready."""
    for server in servers:
        server.launch()
    for server in servers:
        server.wait_until_ready()


class Servers:
    """Several servers. A context manager that starts them all, and ends them whatever happens."""

    def __init__(self, count: int = 4, folder: Path | None = None, *, extra_config: str = "") -> None:
        self._given_folder = folder
        self._count = count
        self._extra_config = extra_config
        self._cleanup = contextlib.ExitStack()
        self.all: list[ServerProcess] = []

    def __getitem__(self, number: int) -> ServerProcess:
        """DFS1 is number 1."""
        assert 1 <= number <= len(self.all), number
        return self.all[number - 1]

    def __iter__(self) -> Iterator[ServerProcess]:
        return iter(self.all)

    def __len__(self) -> int:
        return len(self.all)

    def restore(self) -> None:
        """Make all servers run again, with their data, and none hang."""
        for server in self.all:
            if server.is_running():
                server.thaw()
        start_all([server for server in self.all if not server.is_running()])

    def write_client_config(self, folder: Path, user: str = "alice", password: str | None = None) -> Path:
        """Write a dfc.yaml that names these servers into `folder`."""
        path = folder / "dfc.yaml"
        lines = ["servers:"]
        lines += [f"  - {{name: {server.name}, host: 127.0.0.1, port: {server.port}}}" for server in self.all]
        lines += [f"username: {user}", f"password: {USERS[user] if password is None else password}", ""]
        path.write_text("\n".join(lines))
        path.chmod(0o600)
        return path

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            if self._given_folder is None:
                temporary = tempfile.TemporaryDirectory(prefix="dfs-servers-")
                self.folder = Path(stack.enter_context(temporary))
            else:
                self.folder = self._given_folder
            config = write_server_config(self.folder, self._extra_config)
            for number, port in enumerate(free_ports(self._count), start=1):
                server = ServerProcess(self.folder / f"DFS{number}", config, port)
                stack.callback(server.close)
                self.all.append(server)
            start_all(self.all)
            self._cleanup = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            for server in self.all:
                if text := server.stderr():
                    print(f"---- stderr of {server.name} ----\n{text}", file=sys.stderr)
        self._cleanup.close()


def command(root: Path, port: int, config: Path, *options: str) -> list[str]:
    """The command line of a server, for running in `REPOSITORY`."""
    return [sys.executable, "-m", "dfs_server", str(root), str(port), "--config", str(config), "-v", *options]


def write_server_config(folder: Path, extra: str = "") -> Path:
    """Write a dfs.yaml with the users of `USERS`."""
    path = folder / "dfs.yaml"
    users = "".join(f"  {user}: {{password: {password}}}\n" for user, password in USERS.items())
    path.write_text(f"users:\n{users}{extra}")
    path.chmod(0o600)
    return path


def _first_line(process: subprocess.Popen[str], timeout_s: float) -> str:
    """Return the first line that the process prints; empty if it ends or the time is up before that."""
    assert process.stdout is not None
    descriptor = process.stdout.fileno()
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    deadline = time.monotonic() + timeout_s
    line = b""
    while not line.endswith(b"\n"):
        if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000) or not (part := os.read(descriptor, 4096)):
            break
        line += part
    return line.decode()
