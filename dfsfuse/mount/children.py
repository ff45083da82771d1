"""Runs commands that touch a mount: each in a separate process, with a deadline.

A process that touches a hanging mount blocks in the kernel, where signals may not reach it. So a command that has not
ended in time is killed and abandoned, not waited for. Knows no mounts. No threads.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

_KILLED_WITHIN_S: Final = 0.5
"""A process that can be killed is gone within this time."""


def run(command: Sequence[str], timeout_s: float) -> tuple[int, str] | None:
    """A command's exit status and error output; None if it did not end in time."""
    child = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**os.environ, "LC_ALL": "C"},
    )
    try:
        _, complaint = child.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        return None
    finally:
        if child.returncode is None:
            _leave(child)
    return child.returncode, " ".join(os.fsdecode(complaint).split())


def _leave(child: subprocess.Popen[bytes]) -> None:
    child.kill()
    with suppress(subprocess.TimeoutExpired):
        child.wait(_KILLED_WITHIN_S)
    if child.stderr is not None:
        child.stderr.close()
