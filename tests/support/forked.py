"""Programs of the project that are forked from a process that has already loaded them, instead of being started.

    process = forked.start(SERVER, [str(root), "0"], stderr=log, folder=here)
    done = forked.run(DFC, ["list"], folder=here, environment={...}, timeout_s=60)

Loading a program costs a third of a second of processor time, and the tests run hundreds of them. Apart from that a
forked program is like a started one: it has a session, arguments, streams, signals and an exit status of its own. The
loaded processes (`_Loaded`, one for each program) end with the test process. How a program starts is tested with
programs that are really started.

Imports only the standard library, so that a forked server has loaded nothing of the client.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import importlib
import json
import os
import random
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Final

TESTS: Final = Path(__file__).resolve().parents[1]
REQUEST_BYTES: Final = 1 << 16
END_S: Final = 10.0


class Forked:
    """A running program, with the part of `subprocess.Popen` that is needed."""

    def __init__(self, pid: int, status: int) -> None:
        self.pid = pid
        self.stdout: IO[bytes] | None = None
        """What it prints. The caller closes it."""
        self.returncode: int | None = None
        self._status = status
        """A pipe that delivers the exit status when the program has ended."""

    def poll(self) -> int | None:
        """Return the exit status; None if the program is running."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0.0)
        return self.returncode

    def wait(self, timeout_s: float | None = None) -> int:
        """Return the exit status, like `Popen.wait`. Raises TimeoutExpired."""
        if self.returncode is None:
            if not select.select([self._status], [], [], timeout_s)[0]:
                raise subprocess.TimeoutExpired(str(self.pid), timeout_s or 0.0)
            self.returncode = os.waitstatus_to_exitcode(int(os.read(self._status, 100)))
            os.close(self._status)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal, unless the program has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)


Program = tuple[str, ...]
"""The module with the program's `main`, and modules that the program imports later."""
SERVER: Final[Program] = ("dfs_server.cli",)
DFC: Final[Program] = (
    "dfsfuse.cli.dfc.app",
    "dfsfuse.cli.dfc.connection",
    "dfsfuse.upkeep.fsck.run",
    "dfsfuse.upkeep.verify",
)


def start(program: Program, arguments: Sequence[str], *, stderr: int, folder: Path) -> Forked:
    """Run a program in this folder. Its output can be read from `stdout`."""
    stdout, theirs = os.pipe()
    try:
        running = _loaded(program).start(arguments, theirs, stderr, folder, None)
    finally:
        os.close(theirs)
    running.stdout = os.fdopen(stdout, "rb", buffering=0)
    return running


def run(
    program: Program, arguments: Sequence[str], *, folder: Path, environment: Mapping[str, str], timeout_s: float
) -> subprocess.CompletedProcess[bytes]:
    """Run a program to its end, like `subprocess.run(..., capture_output=True)`, with an empty standard input."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        running = _loaded(program).start(arguments, out.fileno(), err.fileno(), folder, environment)
        try:
            code = running.wait(timeout_s)
        finally:
            running.kill()
            running.wait(END_S)
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess([program[0], *arguments], code, out.read(), err.read())


class _Loaded:
    """The process that has loaded a program, as seen from the test process."""

    def __init__(self, program: Program) -> None:
        self._lock = threading.Lock()
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "support.forked", str(theirs.fileno()), *program],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                cwd=TESTS,
                env=os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)])},
                start_new_session=True,
            )
        atexit.register(self._end)

    def start(
        self, arguments: Sequence[str], stdout: int, stderr: int, folder: Path, environment: Mapping[str, str] | None
    ) -> Forked:
        told, status = os.pipe()
        try:
            request = json.dumps([list(arguments), str(folder), environment and dict(environment)]).encode()
            with self._lock:
                socket.send_fds(self._control, [request], [stdout, stderr, status])
                return Forked(int(self._control.recv(100)), told)
        finally:
            os.close(status)

    def _end(self) -> None:
        self._control.close()
        self._process.wait(END_S)


@functools.cache
def _loaded(program: Program) -> _Loaded:
    return _Loaded(program)


# ------------------------------------------------------------------ the process that has loaded the program


def _serve(control: socket.socket, program: Program) -> None:
    """Fork for each request, and report the exit status of each child. A child returns when the program has ended."""
    main, *_ = [importlib.import_module(module) for module in program]
    wakes, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    statuses: dict[int, int] = {}
    while True:
        ready, _, _ = select.select([control, wakes], [], [])
        if wakes in ready:
            os.read(wakes, 1000)
            _tell(statuses)
        if control in ready:
            request, fds, _, _ = socket.recv_fds(control, REQUEST_BYTES, 3)
            if not request:
                return
            stdout, stderr, status = fds
            pid = os.fork()
            if not pid:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                control.close()
                for each in (wakes, wake, status, *statuses.values()):
                    os.close(each)
                _become(request, stdout, stderr)
                main.main()
                return
            statuses[pid] = status
            os.close(stdout)
            os.close(stderr)
            control.send(b"%d" % pid)


def _tell(statuses: dict[int, int]) -> None:
    """Report the exit status of all children that have ended."""
    with contextlib.suppress(ChildProcessError):
        while (found := os.waitpid(-1, os.WNOHANG))[0]:
            pid, how = found
            status = statuses.pop(pid)
            with contextlib.suppress(BrokenPipeError):  # the status is no longer wanted
                os.write(status, b"%d" % how)
            os.close(status)


def _become(request: bytes, stdout: int, stderr: int) -> None:
    """Do what a start would have done."""
    arguments, folder, environment = json.loads(request)
    os.setsid()
    os.chdir(folder)
    for given, number in ((stdout, 1), (stderr, 2)):
        os.dup2(given, number)
        os.close(given)
    sys.argv[1:] = arguments
    if environment is not None:
        os.environ.clear()
        os.environ.update(environment)
    random.seed()


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])), tuple(sys.argv[2:]))
