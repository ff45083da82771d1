"""Runs third-party programs in a mount: with a deadline, as another user if necessary, and with their output.

A missing program is a failure that says what to install, never a skip. Independent of mounts and servers.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

DEADLINE_S: Final = 60.0
_QUIET: Final = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull, "LC_ALL": "C"}


def run(
    *command: str | Path,
    cwd: Path | None = None,
    deadline_s: float = DEADLINE_S,
    user: str | None = None,
    install: str = "make programs",
) -> str:
    """Run a program and return its output. It must exist, end in time and succeed; its child processes end with it."""
    status, output = outcome(*command, cwd=cwd, deadline_s=deadline_s, user=user, install=install)
    assert status == 0, f"{shown(command)}: exit status {status}\n{output[-10_000:]}"
    return output


def outcome(
    *command: str | Path,
    cwd: Path | None = None,
    deadline_s: float = DEADLINE_S,
    user: str | None = None,
    install: str = "make programs",
) -> tuple[int, str]:
    """Like `run`, for a program that may fail: return its exit status and output."""
    with started(*command, cwd=cwd, user=user, install=install) as process:
        try:
            output = process.communicate(timeout=deadline_s)[0]
        except subprocess.TimeoutExpired:
            end_session(process.pid)
            said = process.communicate()[0][-3000:]
            raise AssertionError(f"{command[0]} not done within {deadline_s:g} s:\n{said}") from None
    return process.returncode, output


@contextmanager
def started(
    *command: str | Path, cwd: Path | None = None, user: str | None = None, install: str = "make programs"
) -> Iterator[subprocess.Popen[str]]:
    """Run a program for the length of the block; its output can be read from `stdout`."""
    assert shutil.which(str(command[0])), f"{command[0]} is missing: {install}"
    with subprocess.Popen(
        list(map(str, command)),
        cwd=cwd,
        env=os.environ | _QUIET,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
        **as_user(user),  # type: ignore[call-overload]
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                end_session(process.pid)


def as_user(user: str | None) -> dict[str, object]:
    """The arguments of `Popen` for running as another user, without our groups."""
    return {} if user is None else {"user": user, "group": user, "extra_groups": []}


def end_session(leader: int) -> None:
    """kill -9 for a process that was started as a session leader, and for its process group."""
    try:
        os.killpg(leader, signal.SIGKILL)
    except ProcessLookupError:
        return


def shown(command: Sequence[str | Path]) -> str:
    return " ".join(map(str, command))
