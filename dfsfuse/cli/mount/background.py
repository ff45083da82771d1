"""Goes to the background only when the work has begun, and reports the outcome to the waiting parent.

`run` forks before there is any thread or connection. The child does the work and reports through a pipe: "ready", or a
sentence and an exit code. The parent prints the sentence, if there is one, and returns the code; it waits until its
deadline at most and then ends the child.

The child leaves its parent's session when it is ready and not before: autofs and systemd's automount recognise the
processes that are making a mount by their process group; a process in another group would block at the mountpoint until
the mount is made.

The child's standard error goes to the log file, because libraries such as libfuse write their complaints there.
"""

from __future__ import annotations

import json
import os
import select
import signal
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from dfsfuse.cli.exit_codes import DONE, FAILED
from dfsfuse.mount.errors import MountTimeoutError

START_TIMEOUT_S = 20.0
_TEXT_MAX = 8000
_MAX_REPORT_BYTES = 100 + 12 * _TEXT_MAX
"""A character takes at most twelve bytes in JSON, as two surrogates."""


@dataclass(frozen=True)
class Report:
    """The child's report about its start."""

    exit_code: int
    text: str = ""


class Reporter:
    """The child's end of the pipe. The first report counts, later ones are dropped. After reporting success the child
    leaves its parent's session."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor

    def __call__(self, report: Report) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is None:
            return
        if report.exit_code == DONE:
            os.setsid()
        data = json.dumps({"exit_code": report.exit_code, "text": report.text[:_TEXT_MAX]}).encode()
        with suppress(BrokenPipeError):
            os.write(descriptor, data)
        os.close(descriptor)


def run(work: Callable[[Reporter], int], *, log_file: Path, timeout_s: float = START_TIMEOUT_S) -> Report:
    """Run `work` in a child process. Returns only in the parent, with the child's report.

    `work` gets the reporter, must not raise, and returns the child's exit code.
    """
    assert threading.active_count() == 1, "fork before the first thread"
    reader, writer = os.pipe2(os.O_CLOEXEC)
    child = os.fork()
    if child == 0:
        os.close(reader)
        _leave_streams(log_file)
        code = FAILED
        try:
            code = work(Reporter(writer))
        except BaseException:  # noqa: BLE001 (the child cannot report it in any other way)
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(writer)
    try:
        return _await_report(reader, child, log_file, timeout_s)
    except BaseException:  # Ctrl-C
        _end(child)
        raise
    finally:
        os.close(reader)


def _leave_streams(log_file: Path) -> None:
    os.chdir("/")
    nothing = os.open(os.devnull, os.O_RDWR)
    log = os.open(log_file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    os.dup2(log, 2)
    for descriptor in {nothing, log} - {0, 1, 2}:
        os.close(descriptor)


def _await_report(reader: int, child: int, log_file: Path, timeout_s: float) -> Report:
    deadline = time.monotonic() + timeout_s
    data = b""
    while len(data) < _MAX_REPORT_BYTES:
        left_s = deadline - time.monotonic()
        if left_s <= 0 or not select.select([reader], [], [], left_s)[0]:
            _end(child)
            return Report(
                MountTimeoutError.exit_code,
                f"The mount did not start within {timeout_s:.0f} s and was stopped. Its log: {log_file}",
            )
        block = os.read(reader, 4096)
        if not block:
            break
        data += block
    try:
        fields = json.loads(data)
        return Report(int(fields["exit_code"]), str(fields["text"]))
    except (ValueError, KeyError, TypeError):
        return Report(FAILED, f"The mount ended before it was ready. Its log: {log_file}")


def _end(child: int) -> None:
    """Ask the child to end, and kill it if it does not within two seconds."""
    exited = os.pidfd_open(child)
    try:
        for number in (signal.SIGTERM, signal.SIGKILL):
            signal.pidfd_send_signal(exited, number)
            if select.select([exited], [], [], 2.0)[0]:
                break
    except ProcessLookupError:
        pass
    finally:
        os.close(exited)
