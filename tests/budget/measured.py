"""Starts the counting in a separate process, and returns the results."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from support.preloaded import build

from .cost import Line

TESTS: Final = Path(__file__).parents[1]
TABLE: Final = Path(__file__).with_name("table.md")
PAGE: Final = TESTS.parent / "docs" / "benchmarks.md"
IN_MEMORY: Final = "/dev/shm"
"""The place for the servers' folders, if it exists: it is faster than a disk, whose work is only counted."""
TIMEOUT_S: Final = 400.0
"""It takes about ten seconds, and minutes only on a very busy machine."""


class Measured(NamedTuple):
    """The results by the operation's name; `notes` say which thread woke which."""

    lines: Mapping[str, Line]
    notes: Mapping[str, str]


def measure(*names: str, broken: str = "") -> Measured:
    """Measure these operations, or all. Raises AssertionError with the process's output if anything goes wrong in
    it."""
    memory = IN_MEMORY if os.access(IN_MEMORY, os.W_OK) else None
    with (
        tempfile.TemporaryDirectory(prefix="dfs-budget-") as folder,
        tempfile.TemporaryDirectory(prefix="dfs-budget-", dir=memory) as stored,
    ):
        layer = build("fsyncs.c", Path(folder))
        environment = {
            **os.environ,
            "LD_PRELOAD": str(layer),
            "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)]),
            "PYTHONHASHSEED": "0",
        }
        command = [sys.executable, "-m", "budget.counting", stored, *names, *([f"--broken={broken}"] if broken else [])]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=TIMEOUT_S, check=False)
    assert done.returncode == 0, done.stderr[-10_000:]
    assert not done.stderr, done.stderr[-10_000:]
    return _parsed(done.stdout.strip())


def _parsed(output: str) -> Measured:
    lines: dict[str, Line] = {}
    notes: dict[str, str] = {}
    for block in output.split("\n\n"):
        row, *woken = block.splitlines()
        line = Line.from_row(row)
        lines[line.name] = line
        notes[line.name] = "; ".join(woken)
    return Measured(lines, notes)
