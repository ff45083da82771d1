"""The four real servers of a test file; a file whose tests break them has fixtures of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.mounts import Grid
from support.servers import Servers


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Grid]:
    """With mounts."""
    with Grid(tmp_path_factory.mktemp("grid")) as grid:
        yield grid


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    """Without."""
    with Servers(4) as servers:
        yield servers
