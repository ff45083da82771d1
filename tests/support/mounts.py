"""Four real servers with real mounts and runs of `dfc`, for tests and the benchmark.

`Grid` adds mounts and commands to `support.servers.Servers`: leaving its `with` block unmounts and ends everything,
whatever happened, and prints the mounts' logs after a failure.
All waits are for events (a line, an exit, a change of the mount table) and have a deadline; only `eventually` polls.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import functools
import os
import queue
import select
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeVar, cast

from support.servers import REPOSITORY, Servers, start_all

from dfsfuse.mount import mount_table

USER: Final = "alice"
T = TypeVar("T")
START_DEADLINE_S: Final = 30.0
STOP_DEADLINE_S: Final = 20.0

_STARTERS: Final = {
    "dfc": "from dfsfuse.cli.dfc.app import main",
    "dfsmount": "from dfsfuse.cli.mount.dfsmount import main",
}


def program(name: str) -> list[str]:
    """The command line of one of the client's two programs, from this source tree even if it is not installed."""
    return [sys.executable, "-c", f"import sys; sys.argv[0] = {name!r}; {_STARTERS[name]}; sys.exit(main())"]


@functools.cache
def _state_folder() -> str:
    folder = tempfile.mkdtemp(prefix="dfsfuse-tests-state-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def environment() -> dict[str, str]:
    """The environment of all programs that the tests start: it hides the user's own configs, and keeps logs and unsaved
    data of mounts out of the user's state folder."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("DFS_")}
    return kept | {"PYTHONPATH": str(REPOSITORY), "PYTHONUNBUFFERED": "1", "XDG_STATE_HOME": _state_folder()}


def eventually(condition: Callable[[], bool], what: str, within_s: float = 20.0) -> None:
    """Wait until `condition()` holds, by polling, for effects that cause no event."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {within_s:g} s: {what}"
        time.sleep(0.02)


def within(seconds: float, what: str, action: Callable[[], T]) -> T:
    """Run the action in a thread of its own, and fail if it takes longer: nothing in a mount may hang.

    A thread that does hang ends when the mount under it is ended.
    """
    outcome: queue.SimpleQueue[tuple[T | None, BaseException | None]] = queue.SimpleQueue()

    def act() -> None:
        try:
            outcome.put((action(), None))
        except BaseException as error:  # noqa: BLE001 (it is raised again below)
            outcome.put((None, error))

    threading.Thread(target=act, daemon=True, name=what).start()
    try:
        result, error = outcome.get(timeout=seconds)
    except queue.Empty:
        raise AssertionError(f"not done within {seconds:g} s: {what}") from None
    if error is not None:
        raise error
    return cast(T, result)


def peak_rss_mib(pid: int) -> float:
    """The peak resident memory of a process (VmHWM)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise ProcessLookupError(pid)


def is_mounted(mountpoint: Path) -> bool:
    """Whether something is mounted there, by the mount table alone, so that a dead mount is never touched."""
    return any(mount.mountpoint == str(mountpoint) for mount in mount_table.read())


def unmount(mountpoint: Path) -> None:
    """Unmount, lazily if necessary. Works on dead mounts too, and if nothing is mounted."""
    while is_mounted(mountpoint):
        subprocess.run(
            ["fusermount3", "-u", "-z", str(mountpoint)],
            check=False,
            timeout=STOP_DEADLINE_S,
            capture_output=True,
        )


class Mount:
    """One `dfsmount -f` process and its mountpoint."""

    def __init__(self, grid: Grid, mountpoint: Path, options: Sequence[str]) -> None:
        self.path = mountpoint
        self.log = mountpoint.with_name(mountpoint.name + ".log")
        self._command = [
            *program("dfsmount"),
            "--config",
            str(grid.client_config),
            *options,
            "-f",
            str(mountpoint),
        ]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None, "not mounted"
        return self._process.pid

    def mount(self) -> None:
        """Start the mount, and wait until it is in the mount table, whose changes can be polled."""
        assert self._process is None, f"{self.path} is mounted"
        if not is_mounted(self.path):  # otherwise this mounts over a killed mount
            self.path.mkdir(exist_ok=True)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env=environment(),
                cwd=self.path.parent,
            )
        deadline = time.monotonic() + START_DEADLINE_S
        exited = os.pidfd_open(self._process.pid)
        try:
            with Path("/proc/self/mountinfo").open("rb") as table:
                changes = select.poll()
                changes.register(table, select.POLLPRI)
                changes.register(exited, select.POLLIN)
                while not self._is_ours():
                    left = deadline - time.monotonic()
                    assert left > 0, f"not mounted in time: {self.log.read_text()[-3000:]}"
                    assert self._process.poll() is None, f"dfsmount ended: {self.log.read_text()[-3000:]}"
                    changes.poll(left * 1000)
        finally:
            os.close(exited)

    def _is_ours(self) -> bool:
        """Whether this mount is there and alive: a dead one that is about to be replaced does not count."""
        if not is_mounted(self.path):
            return False
        try:
            with os.scandir(self.path):  # the kernel might answer stat() from what it cached of the dead mount
                pass
        except OSError as error:
            if error.errno == errno.ENOTCONN:
                return False
            raise
        return True

    def unmount(self) -> int:
        """Unmount as a user does, wait for the process, and return its exit status."""
        process, self._process = self._process, None
        if process is None:
            return 0
        with process:
            done = subprocess.run(
                ["fusermount3", "-u", str(self.path)],
                check=False,
                timeout=STOP_DEADLINE_S,
                capture_output=True,
            )
            if done.returncode != 0:
                unmount(self.path)
            try:
                return process.wait(STOP_DEADLINE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                raise

    def wait(self) -> int:
        """Wait for the process, which ends by itself, and return its exit status."""
        process, self._process = self._process, None
        assert process is not None, "not mounted"
        with process:
            return process.wait()

    def remount(self) -> None:
        """Unmount and mount again, which empties all caches."""
        self.unmount()
        self.mount()

    def kill(self) -> None:
        """kill -9; the mountpoint stays as a dead mount."""
        process, self._process = self._process, None
        if process is not None:
            with process:
                process.kill()
                process.wait(STOP_DEADLINE_S)

    def end(self) -> None:
        """End the mount, whatever its state, so that nothing of it is left."""
        if self._process is not None and is_mounted(self.path):
            with contextlib.suppress(Exception):
                self.unmount()
        self.kill()
        unmount(self.path)


class Grid:
    """Four servers in one folder, and the mounts and commands that use them. `grid.servers[1]` is DFS1."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.servers = Servers(4, folder)
        self.client_config = folder / "dfc.yaml"
        self.mounts: list[Mount] = []
        self._running = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as running:
            running.enter_context(self.servers)
            running.callback(self._end_mounts)
            self.servers.write_client_config(self.folder)
            self._running = running.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            for mount in self.mounts:
                print(
                    f"---- log of {mount.path} ----\n{mount.log.read_text(errors='replace')[-20_000:]}", file=sys.stderr
                )
        self._running.__exit__(kind, error, trace)

    def _end_mounts(self) -> None:
        for mount in self.mounts:
            mount.end()

    def mount(self, name: str = "mnt", options: Sequence[str] = ()) -> Mount:
        """Mount the namespace in a folder of this name, next to the servers' folders."""
        mount = Mount(self, self.folder / name, options)
        self.mounts.append(mount)
        mount.mount()
        return mount

    def dfc(self, *arguments: str | Path, timeout_s: float = 120.0) -> subprocess.CompletedProcess[bytes]:
        """Run one `dfc` command to its end."""
        command = [*program("dfc"), "--config", str(self.client_config), *map(str, arguments)]
        return subprocess.run(
            command, capture_output=True, timeout=timeout_s, env=environment(), check=False, cwd=self.folder
        )

    def roots(self) -> dict[str, Path]:
        """The servers' folders by name."""
        return {server.name: server.root for server in self.servers}

    @contextlib.contextmanager
    def without(self, *numbers: int) -> Iterator[None]:
        """Kill some servers for the length of the block, and start them again after it."""
        for number in numbers:
            self.servers[number].kill()
        try:
            yield
        finally:
            start_all([self.servers[number] for number in numbers])
