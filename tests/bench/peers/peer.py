"""What all peers have in common: servers and a mount in their own network namespace and folder.

The namespace has only a loopback device: ports never collide, and the servers cannot be reached from outside. Its
processes are exactly the peer's, including daemons; they are ended by pid.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Final, Self

from support.mounts import is_mounted, unmount

READY_S: Final = 60.0
COMMAND_S: Final = 120.0
END_S: Final = 10.0
SERVERS: Final = (1, 2, 3, 4)
PACKAGED_PROGRAMS: Final = Path(__file__).resolve().parents[3] / ".bench-peers" / "bin"
"""The folder where `make bench-peers` installs programs that come as Python packages."""


class PeerError(Exception):
    """A peer failed. The message says what failed, with the peer's output."""


def find_program(name: str) -> str | None:
    """Return the path of a program, or None if it is not installed."""
    path = os.pathsep.join([str(PACKAGED_PROGRAMS), os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
    return shutil.which(name, path=path)


class Peer(ABC):
    """A file system. `with` starts its servers and mounts it; leaving the block ends everything, whatever happened."""

    name: ClassVar[str]
    programs: ClassVar[Sequence[str]]
    """The programs that must be installed."""
    can_lose_a_server: ClassVar[bool] = True

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.mountpoint = folder / "mnt"
        self._running = contextlib.ExitStack()
        self._holder: subprocess.Popen[bytes] | None = None

    @classmethod
    def missing(cls) -> list[str]:
        """Return the programs that are not installed."""
        return [name for name in cls.programs if find_program(name) is None]

    @abstractmethod
    def start_servers(self) -> None:
        """Start all servers. Raises PeerError."""

    @abstractmethod
    def mount(self) -> None:
        """Mount it at `mountpoint`, and return when it is mounted. Raises PeerError."""

    def stop_a_server(self) -> None:
        """Kill one server that holds data, with SIGKILL."""
        raise PeerError(f"{self.name} has one server")

    def remount(self) -> None:
        """Unmount and mount again, which empties the client's caches."""
        unmount(self.mountpoint)
        self.wait_for(lambda: not is_mounted(self.mountpoint), "the mount is gone")
        self.mount()

    def __enter__(self) -> Self:
        self.mountpoint.mkdir(parents=True)
        with contextlib.ExitStack() as running:
            self._hold_namespace()
            running.callback(self._end)
            self.start_servers()
            self.mount()
            self._running = running.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._running.close()

    # -------------------------------------------------------------- for the peers

    def run(self, *command: str | Path) -> str:
        """Run a command to its end in the namespace, and return its output. Raises PeerError."""
        log = self.folder / "commands.log"  # not a pipe, which a daemon left behind by the command would keep open
        with log.open("wb") as output:
            done = subprocess.run(
                self._inside(command),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                timeout=COMMAND_S,
                check=False,
            )
        said = log.read_text(errors="replace")
        if done.returncode:
            raise PeerError(f"{self.name}: {command[0]} ended with {done.returncode}: {said[-500:].strip()}")
        return said

    def start(self, log: str, *command: str | Path) -> int:
        """Start a program that stays in the foreground, with its output in a file of this name, and return its pid."""
        with (self.folder / log).open("ab") as output:
            process = subprocess.Popen(
                self._inside(command), stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=self.folder
            )
        return process.pid  # nsenter and unshare exec the program, so this is the program's pid

    def succeeds(self, *command: str | Path) -> bool:
        """Return whether the command succeeds."""
        try:
            self.run(*command)
        except PeerError:
            return False
        return True

    def wait_for(self, condition: Callable[[], bool], what: str) -> None:
        """Poll until the condition holds. Raises PeerError."""
        deadline = time.monotonic() + READY_S
        while not condition():
            if time.monotonic() > deadline:
                raise PeerError(f"{self.name}: not within {READY_S:g} s: {what}")
            time.sleep(0.1)

    def wait_for_port(self, port: int, host: str = "127.0.0.1") -> None:
        """Wait until a server listens on the port, in the namespace. Raises PeerError."""
        probe = f"exec 3<>/dev/tcp/{host}/{port}"
        self.wait_for(lambda: self.succeeds("bash", "-c", probe), f"port {port} answers")

    def wait_for_mount(self) -> None:
        """Wait until it is mounted. Raises PeerError."""
        self.wait_for(lambda: is_mounted(self.mountpoint), "it is mounted")

    def wait_until_writable(self) -> None:
        """Wait until a file can be created in the mount. Raises PeerError."""

        def is_writable() -> bool:
            try:
                (self.mountpoint / ".ready").write_bytes(b"x")
                (self.mountpoint / ".ready").unlink()
            except OSError:
                return False
            return True

        self.wait_for(is_writable, "a file can be written")

    def pids(self) -> list[int]:
        """Return all processes in the namespace except the one that holds it."""
        assert self._holder is not None
        ours = _namespace_of(self._holder.pid)
        found = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
        return [pid for pid in found if pid != self._holder.pid and _namespace_of(pid) == ours]

    # -------------------------------------------------------------- the namespace

    def _inside(self, command: Sequence[str | Path]) -> list[str]:
        assert self._holder is not None
        program = find_program(str(command[0])) or str(command[0])
        return ["nsenter", f"--net=/proc/{self._holder.pid}/ns/net", program, *map(str, command[1:])]

    def _hold_namespace(self) -> None:
        outside = _namespace_of(os.getpid())
        holder = subprocess.Popen(["unshare", "--net", "sleep", "infinity"], stdin=subprocess.DEVNULL)
        self._holder = holder
        self.wait_for(lambda: _namespace_of(holder.pid) not in ("", outside), "a network namespace (needs root)")
        self.run("ip", "link", "set", "lo", "up")

    def _end(self) -> None:
        unmount(self.mountpoint)
        for number in (signal.SIGTERM, signal.SIGKILL):
            deadline = time.monotonic() + END_S
            while (pids := self.pids()) and time.monotonic() < deadline:
                for pid in pids:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, number)
                    with contextlib.suppress(ChildProcessError):
                        os.waitpid(pid, os.WNOHANG)
                time.sleep(0.1)
        assert self._holder is not None
        self._holder.kill()
        self._holder.wait(END_S)


def _namespace_of(pid: int) -> str:
    """Return the network namespace of a process; empty if the process has ended."""
    try:
        return str(Path(f"/proc/{pid}/ns/net").readlink())
    except OSError:
        return ""
