"""Separate programs for tests, which are given orders line by line, or run at the same time.

A script for `Told` reads orders from its input, and prints a line after carrying out each.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pytest
from support.mounts import Mount, within

DEADLINE_S: Final = 20.0
DONE: Final = "done"


class Told:
    """A Python script that carries out orders."""

    def __init__(self, script: str, *arguments: str | Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", script, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def tell(self, order: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(order + "\n")
        self.process.stdin.flush()

    def answer(self) -> str:
        assert self.process.stdout is not None
        line: str = within(DEADLINE_S, "an answer", self.process.stdout.readline)
        return line.strip()

    def ask(self, order: str) -> str:
        self.tell(order)
        return self.answer()

    def do(self, *orders: str) -> None:
        """Have these orders carried out; all must succeed."""
        for order in orders:
            assert self.ask(order) == DONE, order

    def waits(self) -> bool:
        """Whether it is in the kernel, waiting for the file system's answer."""
        where = Path(f"/proc/{self.process.pid}/wchan").read_text()
        return "fuse" in where or "request_wait" in where

    def end(self) -> None:
        with self.process:
            self.process.kill()
            self.process.wait(DEADLINE_S)


def run_at_once(*commands: Sequence[str | Path], python: str | Path = sys.executable, deadline_s: float = 60) -> None:
    """Run Python scripts with their arguments at the same time; all must succeed."""
    programs = [subprocess.Popen([python, "-c", *command]) for command in commands]
    try:
        assert [program.wait(deadline_s) for program in programs] == [0] * len(programs)
    finally:
        for program in programs:
            with program:
                program.kill()


def file_of_test(request: pytest.FixtureRequest, mounts: tuple[Mount, Mount], content: bytes) -> tuple[Path, Path]:
    """The paths of one file with the test's name in each of two mounts."""
    name = request.node.name.replace("[", "-").rstrip("]")
    (mounts[0].path / name).write_bytes(content)
    return mounts[0].path / name, mounts[1].path / name
