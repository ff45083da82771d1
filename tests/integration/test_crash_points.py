"""A server that is killed or loses power at any change to its disk starts again by itself: nothing acknowledged is
missing, and nothing is incomplete.

`support/crash_points.c` is preloaded into a process that does what a server does (`support/crash_workload.py`), and
sees each write, fsync, rename and unlink, including SQLite's. The process is killed at each of them; and from the trace
of a whole run a model of a disk (`support/disk_model.py`) computes what would be left after a power cut, with three
ways of losing what was not fsynced. Leaving out fsync shows that the checks can fail.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from support import crash_workload
from support.disk_model import Change, ForgetfulDisk, Lost, read_trace
from support.preloaded import build

pytestmark = pytest.mark.integration

TESTS = Path(crash_workload.__file__).parents[1]
TIMEOUT_S = 160


class Traced(NamedTuple):
    """A trace of all changes of a whole run, and its paths."""

    root: Path
    trace: Path
    changes: list[Change]


@pytest.fixture(scope="module")
def layer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("crash_points.c", tmp_path_factory.mktemp("layer"))


def run(layer: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the workload in a separate process with the preloaded layer."""
    path = os.pathsep.join([str(TESTS), str(TESTS.parent)])
    environment = {**os.environ, "LD_PRELOAD": str(layer), "PYTHONPATH": path}
    command = [sys.executable, crash_workload.__file__, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=TIMEOUT_S, check=False)


def count(done: subprocess.CompletedProcess[str]) -> int:
    """Run the workload, which must succeed, and return the number that it prints."""
    assert done.returncode == 0, done.stderr[-5000:]
    return int(done.stdout)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder in memory if possible, since thousands of folders are made and removed."""
    memory = "/dev/shm"
    with tempfile.TemporaryDirectory(prefix="dfs-crash-", dir=memory if os.access(memory, os.W_OK) else None) as path:
        yield Path(path)


@pytest.fixture(scope="module")
def traced(layer: Path, tmp_path_factory: pytest.TempPathFactory) -> Traced:
    folder = tmp_path_factory.mktemp("traced")
    root, trace = folder / "ROOT", folder / "trace"
    root.mkdir()
    done = run(layer, "trace", root, trace)
    assert done.returncode == 0, done.stderr
    changes = read_trace(trace, root)
    disk = ForgetfulDisk()
    for change in changes:
        disk.change(change)
    there = {
        str(path.relative_to(root)): None if path.is_dir() else path.read_bytes()
        for path in root.rglob("*")
        if not path.name.endswith(("-shm", ".said"))
    }
    assert disk.state(Lost.NOTHING) == there, "the layer must see all changes"
    return Traced(root, trace, changes)


def test_killed_at_every_change(layer: Path, traced: Traced, folder: Path) -> None:
    points = [change for change in traced.changes if change.is_point]
    wanted = [number for number, change in enumerate(points) if not change.is_one_of_many]
    assert len(wanted) > 150
    assert {points[number].op for number in wanted} == set("cdwtfru")
    assert count(run(layer, "kill", folder, *map(str, wanted))) == len(wanted)


@pytest.mark.parametrize("lost", ["EVERYTHING", "CONTENTS", "NAMES"])
def test_power_is_lost_at_every_change(layer: Path, traced: Traced, folder: Path, lost: str) -> None:
    done = run(layer, "cut", folder, traced.root, traced.trace, lost, "none")
    assert count(done) > len(crash_workload.STEPS)


@pytest.mark.parametrize(
    ("left_out", "lost"),
    [
        ("any", "EVERYTHING"),
        ("of a piece's file", "CONTENTS"),
        ("of a piece's folder", "NAMES"),
        ("of SQLite's log", "EVERYTHING"),
        ("of the redo log", "EVERYTHING"),
        ("of the quarantine", "NAMES"),
        ("of the user's folder", "NAMES"),
    ],
)
def test_an_fsync_that_is_left_out_is_caught(
    layer: Path, traced: Traced, folder: Path, left_out: str, lost: str
) -> None:
    done = run(layer, "cut", folder, traced.root, traced.trace, lost, left_out)
    assert f"FOUND: power cut with {lost} lost" in done.stderr
