"""Several mounts' locks over one map in memory."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.lock_world import LockWorld


@pytest.fixture
def world() -> Iterator[LockWorld]:
    world = LockWorld()
    yield world
    for mount in world.mounts:
        mount.locks.close()
