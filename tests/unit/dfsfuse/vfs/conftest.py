"""The fixture `mounts`: one namespace in memory, of which tests make mounts."""

from __future__ import annotations

import pytest
from support.memory_mounts import MemoryMounts


@pytest.fixture
def mounts() -> MemoryMounts:
    """A new, empty namespace."""
    return MemoryMounts()
