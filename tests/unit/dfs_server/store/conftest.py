"""The fixture `server`: a store that has been written to and can be damaged."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.spoiled_store import SpoiledStore


@pytest.fixture
def server(tmp_path: Path) -> Iterator[SpoiledStore]:
    """A server with five batches, four applied and one accepted, and the map a = 1, b = 2, c = 3."""
    server = SpoiledStore(tmp_path / "alice")
    server.commit((b"a", b"1"), (b"gone", b"?"))
    server.commit((b"b", b"?"), (b"c", b"3"))
    server.commit((b"b", b"2"))
    server.commit(deletes=(b"gone", b"never there"))
    server.choose()
    server.commit((b"late", b"x"))
    yield server
    server.store.close()
