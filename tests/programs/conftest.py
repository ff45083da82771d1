"""A mount for the programs: four real servers, mounted with default options, open to all users on this machine.

It is outside pytest's folders, which other users cannot enter, since PostgreSQL does not run as root.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.mounts import Grid, Mount


@pytest.fixture(scope="module")
def grid() -> Iterator[Grid]:
    with tempfile.TemporaryDirectory(prefix="dfsfuse-programs-", dir="/var/tmp") as folder:
        Path(folder).chmod(0o755)
        with Grid(Path(folder)) as grid:
            yield grid


@pytest.fixture(scope="module")
def mount(grid: Grid) -> Mount:
    return grid.mount()


@pytest.fixture
def root(mount: Mount, request: pytest.FixtureRequest) -> Path:
    """A folder in the mount for this test alone."""
    folder = mount.path / request.node.name.replace("/", "-")
    folder.mkdir()
    return folder
