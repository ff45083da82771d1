"""The data layer with four real servers and real signals: pieces on disk, and every kind of failure."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator

import pytest
from support.pieces_on_disk import TABLE, holders
from support.servers import USERS, Servers

from dfs_server.protocol.messages import PutPieces
from dfsfuse.data.segments import SegmentStore
from dfsfuse.errors import IncompleteError, ReadOnlyError
from dfsfuse.net.cluster import Cluster
from dfsfuse.net.exchange import Answer, Call
from dfsfuse.net.servers import Credentials, ServerAddress

pytestmark = pytest.mark.integration

SHORT_S = 3.0
"""A short deadline, for a machine that may be busy."""
ALL = [1, 2, 3, 4]


def content(seed: int, size: int = 4 << 20) -> bytes:
    return random.Random(seed).randbytes(size)


@pytest.fixture
def servers(servers: Servers) -> Iterator[Servers]:
    """The same four servers for all tests; each test has its own segments."""
    try:
        yield servers
    finally:
        servers.restore()


@pytest.fixture
def cluster(servers: Servers) -> Iterator[Cluster]:
    addresses = [
        ServerAddress(number, server.name, "127.0.0.1", server.port) for number, server in enumerate(servers, start=1)
    ]
    cluster = Cluster(addresses, Credentials("alice", USERS["alice"]))
    cluster.connect()
    yield cluster
    cluster.close()


@pytest.fixture
def store(cluster: Cluster) -> Iterator[SegmentStore]:
    store = SegmentStore(cluster, cache_bytes=0)
    yield store
    store.close()


@pytest.mark.parametrize("rotation", range(4))
def test_pieces_lie_on_disk_as_in_the_missions_table(servers: Servers, store: SegmentStore, rotation: int) -> None:
    data = content(rotation, 1_000_003)
    segment = store.write(data, rotation).segment
    roots = {server.name: server.root for server in servers}
    assert holders(roots, "alice", data) == {name: set(pair) for name, pair in TABLE[rotation].items()}
    assert store.read(segment, 0, len(data)) == data
    assert store.read(segment, 700_000, 5000) == data[700_000:705_000]
    assert store.missing([segment]) == [frozenset()]


@pytest.mark.parametrize("gone", ALL)
def test_one_server_is_killed(servers: Servers, store: SegmentStore, gone: int) -> None:
    before, after = content(10), content(11)
    old = store.write(before, 0).segment
    servers[gone].kill()
    assert store.read(old, 0, len(before)) == before
    new = store.write(after, 1).segment
    assert all(len(set(home)) == 2 and gone not in home for home in new.homes)
    assert store.read(new, 0, len(after)) == after


def test_one_server_hangs(servers: Servers, store: SegmentStore) -> None:
    data = content(20)
    old = store.write(data, 0).segment
    servers[3].freeze()
    try:
        for work in (lambda: store.write(data, 0), lambda: store.read(old, 0, len(data))):
            took_s = []
            for _ in range(4):
                began = time.monotonic()
                work()
                took_s.append(time.monotonic() - began)
            assert max(took_s) < SHORT_S
            assert store.read(old, 0, len(data)) == data
    finally:
        servers[3].thaw()


def test_one_server_comes_back_with_an_empty_disk(servers: Servers, store: SegmentStore) -> None:
    data = content(30)
    segment = store.write(data, 0).segment
    servers[2].wipe()
    assert store.read(segment, 0, len(data)) == data
    assert store.missing([segment]) == [frozenset()]
    assert [2 in copies for copies in store.copies([segment])[0].values()] == [False] * 4


def test_two_servers_are_gone(servers: Servers, store: SegmentStore) -> None:
    data = content(40)
    segment = store.write(data, 0).segment
    servers[1].kill()
    servers[2].kill()
    began = time.monotonic()
    with pytest.raises(ReadOnlyError):
        store.write(data, 0)
    with pytest.raises(IncompleteError, match="no good copy of P2"):
        store.read(segment, 0, len(data))
    quarter = len(data) // 4
    assert store.read(segment, 2 * quarter, 2 * quarter) == data[2 * quarter :]
    assert store.missing([segment]) == [frozenset({2})]
    assert time.monotonic() - began < SHORT_S


def test_small_segments_are_fetched_together(servers: Servers, cluster: Cluster) -> None:
    """They are fetched all at once, also with one server gone, and are then available without servers."""
    parts = [content(20 + number, 3000 * number + 1) for number in range(8)]
    reader = SegmentStore(cluster)
    written = [reader.write(data, number % 4) for number, data in enumerate(parts)]
    for server in ALL:
        mine = [piece for one in written for piece in one.inline if servers[server].name in piece.homes]
        with cluster.exchange() as exchange:
            request = PutPieces(tuple((piece.segment, piece.number, piece.data) for piece in mine))
            exchange.start(Call(server=server, request=request, stall_s=SHORT_S))
            assert isinstance(exchange.next(None), Answer)
    reader.close()
    servers[3].kill()
    reader = SegmentStore(cluster)
    assert reader.read(written[0].segment, 0, len(parts[0])) == parts[0]
    reader.fetch_small([one.segment for one in written])
    reader.fetch_small([one.segment for one in written])  # by now it is known that server 3 is gone
    for server in (1, 2, 4):
        servers[server].kill()
    for one, data in zip(written, parts, strict=True):
        assert reader.read(one.segment, 0, len(data)) == data
    reader.close()
