"""The fixture `mounts`: a namespace in memory that tests mount."""

from __future__ import annotations

import pytest
from support.memory_mounts import MemoryMounts


@pytest.fixture
def mounts() -> MemoryMounts:
    """A new, empty namespace."""
    return MemoryMounts()
