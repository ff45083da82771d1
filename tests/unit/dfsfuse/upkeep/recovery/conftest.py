"""The fixture `mounts`: a namespace in memory and its mounts."""

from __future__ import annotations

import pytest
from support.memory_mounts import MemoryMounts


@pytest.fixture
def mounts() -> MemoryMounts:
    return MemoryMounts()
