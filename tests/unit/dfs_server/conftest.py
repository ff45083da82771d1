"""Fixtures: a real daemon inside the test process; a clock that tests set."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.daemons import VERIFIERS, House, StartHouse
from support.wall_clock import WallClock

from dfs_server.config import ServerConfig


@pytest.fixture
def start_house(tmp_path: Path) -> Iterator[StartHouse]:
    """Start daemons with the given options; those that ServerConfig has go into the config."""
    with contextlib.ExitStack() as stack:

        def start(name: str = "DFS1", *, root: Path | None = None, **options: Any) -> House:
            settings = {key: options.pop(key) for key in list(options) if key in ServerConfig.__dataclass_fields__}
            config = ServerConfig(**{"users": VERIFIERS, "reserve_bytes": 0, **settings})
            house = House(root or tmp_path / name, config, **options)
            stack.callback(house.close)
            return house

        yield start


@pytest.fixture
def house(start_house: StartHouse) -> House:
    return start_house()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 6 MiB. Needs root, as all our tests do."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "dfs-test", str(disk)], check=True, timeout=10)
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True, timeout=10)


@pytest.fixture
def clock() -> WallClock:
    return WallClock()
