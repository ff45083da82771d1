"""dbench replays the recorded load of an office file server: 90,000 operations on one tree, by several clients at
once."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Final

import pytest
from support.mounts import Grid, within
from support.programs import run

pytestmark = [pytest.mark.programs, pytest.mark.timeout(300)]

SECONDS: Final = 20
DEADLINE_S: Final = 200.0
CLIENTS: Final = 4

MODES: Final = {"plain": (), "xattr": ("-x",), "sync": ("-s", "-S")}


@pytest.mark.parametrize("mode", MODES)
def test_dbench(mode: str, root: Path, grid: Grid) -> None:
    play(root, *MODES[mode])


def test_dbench_with_a_server_missing(root: Path, grid: Grid) -> None:
    with grid.without(3):
        play(root)


def play(folder: Path, *options: str) -> None:
    said = run(
        *("dbench", *options, "-t", str(SECONDS), "-D", folder, str(CLIENTS)),
        deadline_s=DEADLINE_S,
        install="make conformance-programs",
    )
    throughput = re.search(r"^Throughput ([\d.]+) MB/sec", said, re.MULTILINE)
    assert throughput is not None and float(throughput[1]) > 0, said
    wrong = [line for line in said.splitlines() if re.search("failed|ERROR|expected", line) and "semaphore" not in line]
    assert wrong == [], said
    within(DEADLINE_S, "what it left is removed", lambda: shutil.rmtree(folder / "clients"))
    assert list(folder.iterdir()) == []
