"""The real `dfc` as a process, run in a folder of its own against real servers."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from support.servers import REPOSITORY

RUN_S = 60.0


@dataclass(frozen=True)
class Outcome:
    """The result of a run."""

    code: int
    out: bytes
    err: bytes
    took_s: float


@dataclass
class DfcProcess:
    """Runs `dfc --config CONFIG ...` in `folder`."""

    config: Path
    folder: Path
    timeout_s: float = RUN_S
    environment: dict[str, str] = field(default_factory=dict)

    def __call__(self, *arguments: str | bytes, stdin: bytes = b"") -> Outcome:
        began = time.monotonic()
        done = subprocess.run(
            self.command(*arguments),
            input=stdin,
            capture_output=True,
            cwd=self.folder,
            env=self.variables(),
            timeout=self.timeout_s,
            check=False,
        )
        return Outcome(done.returncode, done.stdout, done.stderr, time.monotonic() - began)

    def ok(self, *arguments: str | bytes, stdin: bytes = b"") -> bytes:
        """Run a command that must succeed without output on standard error, and return its standard output."""
        outcome = self(*arguments, stdin=stdin)
        assert (outcome.code, outcome.err) == (0, b""), outcome
        return outcome.out

    def start(self, *arguments: str | bytes) -> subprocess.Popen[bytes]:
        """Start a command that keeps running; the caller ends it."""
        return subprocess.Popen(
            self.command(*arguments),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=self.folder,
            env=self.variables(),
        )

    def command(self, *arguments: str | bytes) -> list[str | bytes]:
        return [sys.executable, "-m", "dfsfuse.cli.dfc.app", "--config", str(self.config), *arguments]

    def variables(self) -> dict[str, str]:
        return {
            **os.environ,
            "PYTHONPATH": str(REPOSITORY),
            "HOME": str(self.folder),
            "XDG_STATE_HOME": str(self.folder / "state"),
            "TERM": "xterm",
            **self.environment,
        }


class Terminal:
    """A program on a terminal of its own (a pty). A context manager that ends the program by its pid."""

    def __init__(self, dfc: DfcProcess, *arguments: str) -> None:
        self.shown = b""
        self._pid, self._descriptor = pty.fork()
        if self._pid == 0:
            try:
                os.chdir(dfc.folder)
                command = [os.fsencode(word) for word in dfc.command(*arguments)]
                os.execve(command[0], command, dfc.variables())
            finally:
                os._exit(127)
        self._code: int | None = None
        termios.tcsetwinsize(self._descriptor, (24, 80))

    def type(self, text: bytes) -> None:
        """Press keys."""
        os.write(self._descriptor, text)

    def wait_for(self, text: bytes, timeout_s: float = 30.0) -> bytes:
        """Read until the text was shown since the last call; return what was shown up to and including it."""
        deadline = time.monotonic() + timeout_s
        while text not in self.shown:
            ready, _, _ = select.select([self._descriptor], [], [], max(0.0, deadline - time.monotonic()))
            if not ready or not (more := self._read()):
                raise AssertionError(f"{text!r} was not shown, but {self.shown!r}")
            self.shown += more
            if b"\x1b[6n" in more:  # prompt_toolkit asks for the cursor's position
                self.type(b"\x1b[1;1R")
        seen, _, self.shown = self.shown.partition(text)
        return seen + text

    def end(self, timeout_s: float = 20.0) -> int:
        """Wait for the program's end, and return its exit code."""
        deadline = time.monotonic() + timeout_s
        while self._code is None:
            ready, _, _ = select.select([self._descriptor], [], [], 0.1)
            if ready:
                self.shown += self._read()
            pid, status = os.waitpid(self._pid, os.WNOHANG)
            if pid:
                self._code = os.waitstatus_to_exitcode(status)
            assert time.monotonic() < deadline, f"the program does not end; it has shown {self.shown!r}"
        return self._code

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._code is None:
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
        os.close(self._descriptor)

    def _read(self) -> bytes:
        try:
            return os.read(self._descriptor, 65536)
        except OSError:  # EIO: the other side is closed
            return b""
