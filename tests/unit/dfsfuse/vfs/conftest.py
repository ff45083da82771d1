"""Fixtures: `mounts`, a namespace in memory that tests mount; `log_cluster`, four servers with a log."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.log_cluster import LogCluster
from support.memory_mounts import MemoryMounts


@pytest.fixture
def mounts() -> MemoryMounts:
    """A new, empty namespace."""
    return MemoryMounts()


@pytest.fixture
def log_cluster(tmp_path: Path) -> Iterator[LogCluster]:
    """Four servers with a log, in virtual time. The log is empty."""
    cluster = LogCluster(tmp_path)
    yield cluster
    cluster.close()
