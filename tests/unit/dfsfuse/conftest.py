"""Fixtures: `log_cluster`, four servers with a log in virtual time; `bench`, servers with any behaviour, over
sockets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.exchange_bench import Bench
from support.log_cluster import LogCluster


@pytest.fixture
def log_cluster(tmp_path: Path) -> Iterator[LogCluster]:
    """Four servers with an empty log."""
    cluster = LogCluster(tmp_path)
    yield cluster
    cluster.close()


@pytest.fixture
def bench() -> Iterator[Bench]:
    """A bench without servers."""
    bench = Bench()
    yield bench
    bench.close()
