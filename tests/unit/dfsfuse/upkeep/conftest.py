"""Fixtures: `log_cluster`, four servers with a log in virtual time; `files`, files whose segments are on four fakes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.log_cluster import LogCluster
from support.stored_files import StoredFiles


@pytest.fixture
def log_cluster(tmp_path: Path) -> Iterator[LogCluster]:
    """Four servers with an empty log."""
    cluster = LogCluster(tmp_path)
    yield cluster
    cluster.close()


@pytest.fixture
def files() -> Iterator[StoredFiles]:
    """A namespace without files."""
    files = StoredFiles()
    yield files
    files.close()
