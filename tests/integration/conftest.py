"""Four real servers for each test file. Files whose tests break servers define fixtures of their own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.mounts import Grid
from support.servers import Servers


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Grid]:
    """Four servers, with mounts."""
    with Grid(tmp_path_factory.mktemp("grid")) as grid:
        yield grid


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    """Four servers, without mounts."""
    with Servers(4) as servers:
        yield servers
