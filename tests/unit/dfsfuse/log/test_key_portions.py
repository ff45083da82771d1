"""Keys whose values do not fit in a reply are requested in smaller portions; this works with old servers too."""

from __future__ import annotations

import pytest
from support.log_cluster import LogCluster, LogServer, log_of, never

from dfs_server.protocol.messages import Error, Message, ReadKeys
from dfs_server.protocol.status import Status
from dfsfuse.errors import UnavailableError
from dfsfuse.log.key_portions import TooMuchAtOnceError, read_in_portions
from dfsfuse.log.quorum_log import QuorumLog
from dfsfuse.log.repairer import Repairer
from dfsfuse.log.state import Contents

KEYS = [b"k%02d" % number for number in range(80)]
LARGE = bytes(60_000)


def refusing(status: Status, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make servers answer requests for more than `most` keys with `status`."""
    answer = LogServer.answer

    def refuse(server: LogServer, request: Message, payload: bytes) -> tuple[Message, bytes]:
        if isinstance(request, ReadKeys) and len(request.keys) > most:
            server.asked.append(request)
            return Error(status, "ask for fewer"), b""
        return answer(server, request, payload)

    monkeypatch.setattr(LogServer, "answer", refuse)


def reader_of(cluster: LogCluster) -> QuorumLog:
    """A reader that has just looked up the end of the log."""
    log = log_of(cluster, b"reader..")
    assert log.catch_up()
    cluster.grid.forget_requests()
    return log


def fill(cluster: LogCluster) -> None:
    """Write all keys to all four servers."""
    log = log_of(cluster)
    for first in range(0, len(KEYS), 20):
        assert log.commit(Contents(puts=tuple((key, LARGE) for key in KEYS[first : first + 20])), never)
    Repairer(cluster, lambda: log.known, clock=cluster.grid.clock)._look()  # type: ignore[arg-type]


def test_more_than_fits_in_a_reply_is_read_in_portions(log_cluster: LogCluster) -> None:
    fill(log_cluster)
    found = list(read_in_portions(reader_of(log_cluster).read_keys, KEYS, 256))
    assert [key for keys, _ in found for key in keys] == KEYS
    assert [value for _, reply in found for value in reply.values] == [LARGE] * len(KEYS)
    assert sum(log_cluster.grid.asked(ReadKeys).values()) == 3, "one refusal is enough to learn the limit"


def test_servers_of_version_0_1_0_are_asked_for_fewer_too(
    log_cluster: LogCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(log_cluster)
    refusing(Status.BAD_REQUEST, 20, monkeypatch)
    found = read_in_portions(reader_of(log_cluster).read_keys, KEYS, 256)
    assert [value for _, reply in found for value in reply.values] == [LARGE] * len(KEYS)


def test_what_one_old_server_refuses_another_may_tell(log_cluster: LogCluster) -> None:
    log = log_of(log_cluster)
    assert log.commit(Contents(puts=((b"a", b"1"), (b"b", b"2"))), never)
    reader = reader_of(log_cluster)
    for server in log_cluster.servers[1:]:
        server.answer = lambda *_: (Error(Status.BAD_REQUEST, "no"), b"")  # type: ignore[method-assign]
    assert [reader.read_keys((b"a", b"b")).values for _ in range(4)] == [(b"1", b"2")] * 4


@pytest.mark.parametrize("status", [Status.TOO_MUCH, Status.BAD_REQUEST])
def test_one_key_that_is_refused_ends_it(
    status: Status, log_cluster: LogCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusing(status, 0, monkeypatch)
    log = log_of(log_cluster)
    with pytest.raises(TooMuchAtOnceError):
        log.read_keys((b"a", b"b"))
    with pytest.raises(UnavailableError, match="ask for fewer") as refused:
        list(read_in_portions(log.read_keys, KEYS, 256))
    assert not isinstance(refused.value, TooMuchAtOnceError)


def test_portions_are_read_when_they_are_asked_for() -> None:
    asked: list[tuple[bytes, ...]] = []
    portions = read_in_portions(asked.append, KEYS[:5], 2)
    assert [(next(portions)[0], len(asked)) for _ in range(3)] == [
        ((KEYS[0], KEYS[1]), 1),
        ((KEYS[2], KEYS[3]), 2),
        ((KEYS[4],), 3),
    ]
    assert list(read_in_portions(asked.append, [], 2)) == []
