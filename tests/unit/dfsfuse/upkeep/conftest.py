"""Four servers with a log in virtual time (`log_cluster`), and files whose segments are on four fake ones (`files`)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.log_cluster import LogCluster
from support.stored_files import StoredFiles


@pytest.fixture
def log_cluster(tmp_path: Path) -> Iterator[LogCluster]:
    """Nothing is in the log yet."""
    cluster = LogCluster(tmp_path)
    yield cluster
    cluster.close()


@pytest.fixture
def files() -> Iterator[StoredFiles]:
    """There are none yet."""
    files = StoredFiles()
    yield files
    files.close()
