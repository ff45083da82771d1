"""The small file system in memory (`support.memory_fs`) behind a real mount, in a process of its own, so that a hanging
test can end it. Every wait has a deadline; every mount is removed, and every process is ended by its pid."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support.mounts import unmount, within
from support.servers import REPOSITORY

DEADLINE_S = 20.0
PROGRAM = REPOSITORY / "tests/support/memory_fs.py"
ENVIRONMENT = os.environ | {"PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'tests'}"}


class Served:
    """A process that serves a mount."""

    def __init__(self, path: Path, *words: str) -> None:
        self.path = path
        self.process = subprocess.Popen(
            [sys.executable, str(PROGRAM), str(path), *words],
            stdout=subprocess.PIPE,
            env=ENVIRONMENT,
            cwd="/",
            text=True,
        )
        assert self._line() == "mounted"

    def _line(self) -> str:
        assert self.process.stdout is not None
        return within(DEADLINE_S, "a word of the file system", self.process.stdout.readline).strip()

    def ended(self) -> None:
        """Wait until the process has ended by itself, and cleanly."""
        assert self._line() == "destroyed 1"
        assert self.process.wait(DEADLINE_S) == 0

    def end(self) -> None:
        """End the mount and its process, whatever their state."""
        unmount(self.path)
        self.process.kill()
        with self.process:
            self.process.wait(DEADLINE_S)


@contextmanager
def served(path: Path, *words: str) -> Iterator[Served]:
    """Mount there for the length of the block."""
    path.mkdir(parents=True, exist_ok=True)
    file_system = Served(path, *words)
    try:
        yield file_system
    finally:
        file_system.end()
