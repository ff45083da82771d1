"""The fixture `log_cluster`: four servers with a log, in virtual time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.log_cluster import LogCluster


@pytest.fixture
def log_cluster(tmp_path: Path) -> Iterator[LogCluster]:
    """Nothing is in the log yet."""
    cluster = LogCluster(tmp_path)
    yield cluster
    cluster.close()
