"""The four servers as one: connecting, failing and returning, with fake servers of any behaviour and with real ones."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.servers import USERS, Servers
from support.wire_server import CREDENTIALS, DEADLINE_S, Greeting, WireServer, wait_until

from dfs_server.protocol.messages import Done, GetPiece, GetPosition, Piece, Position, PutPiece
from dfs_server.protocol.pieces import block_digests
from dfsfuse.common.events import Events
from dfsfuse.errors import AuthenticationError, UnavailableError, WrongServerError
from dfsfuse.net.cluster import COMING_S, STRAGGLER_S, Cluster, _patience_s
from dfsfuse.net.exchange import Answer, Call, Failure
from dfsfuse.net.lines import AUTHENTICATION_S
from dfsfuse.net.servers import Credentials, ServerAddress

ALL = {id: GetPosition() for id in (1, 2, 3, 4)}


@pytest.fixture
def four() -> Iterator[dict[int, WireServer]]:
    servers = {id: WireServer(f"DFS{id}") for id in (1, 2, 3, 4)}
    yield servers
    for server in servers.values():
        server.close()


def cluster_of(
    servers: dict[int, WireServer], credentials: Credentials = CREDENTIALS, events: Events | None = None
) -> Cluster:
    return Cluster([server.address(id) for id, server in servers.items()], credentials, events=events)


def test_connects_to_all_and_asks_all(four: dict[int, WireServer]) -> None:
    with cluster_of(four) as cluster:
        cluster.connect()
        assert cluster.names == {1: "DFS1", 2: "DFS2", 3: "DFS3", 4: "DFS4"}
        assert cluster.usable() == {1, 2, 3, 4}
        outcomes = cluster.ask(ALL, stall_s=DEADLINE_S)
        assert all(isinstance(outcome, Answer) for outcome in outcomes.values())
        assert set(outcomes) == {1, 2, 3, 4}


def test_nothing_is_started_before_connect_and_nothing_is_left_after_close(four: dict[int, WireServer]) -> None:
    def pingers() -> int:
        return sum(thread.name == "dfsfuse-pinger" for thread in threading.enumerate())

    cluster = cluster_of(four)
    assert pingers() == 0
    assert all(server.accepted == 0 for server in four.values())
    cluster.connect()
    assert pingers() == 1
    cluster.close()
    assert pingers() == 0
    cluster.close()


def test_one_server_may_be_missing(four: dict[int, WireServer], caplog: pytest.LogCaptureFixture) -> None:
    four[3].kill()
    with cluster_of(four) as cluster:
        begun = time.monotonic()
        cluster.connect(wait_for_all=True)
        assert time.monotonic() - begun < COMING_S / 2, "it has refused, so nothing waits for it"
        assert cluster.usable() == {1, 2, 4}
        outcomes = cluster.ask(ALL, stall_s=DEADLINE_S)
    assert isinstance(outcomes[3], Failure)
    expected = f"{four[3].address(3)} does not answer: connection refused; trying again in the background"
    assert caplog.messages == [expected]


def test_one_server_may_hang_and_connecting_does_not_wait_for_it_for_long(four: dict[int, WireServer]) -> None:
    four[2].greeting = Greeting.SILENT
    with cluster_of(four) as cluster:
        before = time.monotonic()
        cluster.connect()
        assert time.monotonic() - before < 2.0
        assert cluster.usable() == {1, 3, 4}


def test_when_all_answer_nothing_waits(four: dict[int, WireServer]) -> None:
    """One request to each, and no pause."""
    for wait_for_all in (False, True):
        with cluster_of(four) as cluster:
            begun = time.monotonic()
            cluster.connect(wait_for_all=wait_for_all)
            assert time.monotonic() - begun < STRAGGLER_S
            assert cluster.missing() == []
    assert all(len(server.requests) == 2 for server in four.values())


@pytest.mark.parametrize(
    ("answered", "took_s", "is_only_one", "patience_s"),
    [
        (0, 0.0, False, COMING_S),
        (3, 0.0, True, STRAGGLER_S),
        (3, 0.1, True, 0.1 + STRAGGLER_S),
        (3, 1.0, True, 4.0),
        (3, 4.0, True, COMING_S),
        (2, 0.1, False, AUTHENTICATION_S),
        (2, 1.5, False, 4.5),
        (1, 4.0, False, COMING_S),
    ],
)
def test_where_everything_takes_long_the_last_ones_are_waited_for_longer(
    answered: int, took_s: float, is_only_one: bool, patience_s: float
) -> None:
    assert _patience_s(answered, took_s, is_only_one=is_only_one) == pytest.approx(patience_s)


def test_no_server_answers(four: dict[int, WireServer]) -> None:
    for server in four.values():
        server.kill()
    with cluster_of(four) as cluster, pytest.raises(UnavailableError) as caught:
        cluster.connect()
    assert all(f"DFS{id} (127.0.0.1:{four[id].port})" in str(caught.value) for id in (1, 2, 3, 4))


def test_refused_user_stops_everything(four: dict[int, WireServer]) -> None:
    with (
        cluster_of(four, Credentials("alice", "wrong")) as cluster,
        pytest.raises(AuthenticationError, match="refuses user 'alice'"),
    ):
        cluster.connect()
    assert all(server.requests == [] for server in four.values())


def test_swapped_servers_are_noticed(four: dict[int, WireServer]) -> None:
    four[1].says, four[2].says = "DFS2", "DFS1"
    with cluster_of(four) as cluster, pytest.raises(WrongServerError):
        cluster.connect()


def test_server_that_comes_back_is_found_without_anybody_asking(
    four: dict[int, WireServer], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO), cluster_of(four) as cluster:
        cluster.connect()
        four[4].kill()
        wait_until(lambda: isinstance(cluster.ask({4: GetPosition()}, stall_s=DEADLINE_S)[4], Failure))
        assert cluster.usable() == {1, 2, 3}
        four[4].start()
        wait_until(lambda: 4 in cluster.usable())
    assert caplog.messages[-1] == f"{four[4].address(4)} answers again"


def test_hung_server_is_found_again_when_it_answers(four: dict[int, WireServer]) -> None:
    four[1].greeting = Greeting.SILENT
    with cluster_of(four) as cluster:
        cluster.connect()
        assert 1 not in cluster.usable()
        four[1].greeting = Greeting.NORMAL
        wait_until(lambda: 1 in cluster.usable())


def test_recheck_finds_a_restarted_server_at_once(four: dict[int, WireServer]) -> None:
    with cluster_of(four) as cluster:  # without the pinger's thread
        four[1].kill()
        assert isinstance(cluster.ask(ALL, stall_s=DEADLINE_S)[1], Failure)
        assert cluster.usable() == {2, 3, 4}
        four[1].start()
        wait_until(lambda: 1 in cluster.recheck())


def test_recheck_of_nothing_costs_nothing(four: dict[int, WireServer]) -> None:
    with cluster_of(four) as cluster:
        assert cluster.recheck() == {1, 2, 3, 4}
    assert all(server.accepted == 0 for server in four.values())


def test_user_that_is_refused_later_is_refused_with_an_error(four: dict[int, WireServer]) -> None:
    with cluster_of(four) as cluster:
        cluster.connect()
    with cluster_of(four, Credentials("alice", "changed")) as cluster, pytest.raises(AuthenticationError):
        cluster.ask(ALL, stall_s=DEADLINE_S)


def test_many_threads_share_the_connections(four: dict[int, WireServer]) -> None:
    with cluster_of(four) as cluster:
        cluster.connect()
        failures: list[object] = []

        def work() -> None:
            for _ in range(50):
                outcomes = cluster.ask(ALL, stall_s=DEADLINE_S)
                failures.extend(outcome for outcome in outcomes.values() if not isinstance(outcome, Answer))

        threads = [threading.Thread(target=work) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(DEADLINE_S)
            assert not thread.is_alive()
    assert failures == []


# ---------------------------------------------------------------- real servers


@pytest.mark.integration
def test_real_servers_that_are_killed_frozen_and_restarted(tmp_path: Path) -> None:
    with Servers(4, tmp_path) as servers:
        addresses = [ServerAddress(id, server.name, "127.0.0.1", server.port) for id, server in enumerate(servers, 1)]
        with Cluster(addresses, Credentials("alice", USERS["alice"])) as cluster:
            cluster.connect()
            data = bytes(range(256)) * 4096
            put = PutPiece(b"s" * 16, 1, block_digests(data))
            sink = bytearray(len(data))
            with cluster.exchange() as exchange:
                exchange.start(Call(1, put, (memoryview(data),), stall_s=DEADLINE_S))
                outcome = exchange.next(None)
                assert isinstance(outcome, Answer)
                assert outcome.reply == Done()
                exchange.start(Call(1, GetPiece(b"s" * 16, 1), sink=memoryview(sink), stall_s=DEADLINE_S))
                outcome = exchange.next(None)
                assert isinstance(outcome, Answer)
                assert outcome.reply == Piece(len(data), block_digests(data))
            assert sink == data

            servers[1].restart()
            assert 1 in cluster.recheck(DEADLINE_S), "a recheck must find a restarted server"
            servers[2].freeze()
            servers[3].kill()
            outcomes = cluster.ask(ALL, stall_s=1.0)
            assert isinstance(outcomes[1], Answer)
            assert isinstance(outcomes[1].reply, Position)
            assert isinstance(outcomes[2], Failure)
            assert isinstance(outcomes[3], Failure)
            assert cluster.usable() == {1, 4}

            servers[2].thaw()
            servers[3].start()
            wait_until(lambda: cluster.usable() == {1, 2, 3, 4})


@pytest.mark.integration
def test_real_server_refuses_a_wrong_password(tmp_path: Path) -> None:
    with Servers(1, tmp_path) as servers:
        address = ServerAddress(1, "DFS1", "127.0.0.1", servers[1].port)
        with Cluster([address], Credentials("alice", "wrong")) as cluster, pytest.raises(AuthenticationError):
            cluster.connect()
        with Cluster([address], Credentials("nobody", "wrong")) as cluster, pytest.raises(AuthenticationError):
            cluster.connect()


def test_two_servers_with_one_identity_are_refused(four: dict[int, WireServer]) -> None:
    """The folder of one is a copy of the other's, including its votes."""
    four[1].identity = four[3].identity = b"i" * 16
    with (
        pytest.raises(WrongServerError, match=r"DFS\d .* has the same identity as DFS\d .* is a copy"),
        cluster_of(four) as cluster,
    ):
        cluster.connect()


def test_a_server_that_comes_back_with_another_folder_is_told(
    four: dict[int, WireServer], caplog: pytest.LogCaptureFixture
) -> None:
    events = Events()
    with cluster_of(four, events=events) as cluster:
        cluster.connect()
        wait_until(lambda: len(cluster.identities()) == 4)
        before = cluster.identities()
        told = threading.Event()
        events.on_servers_changed = told.set
        four[2].kill()
        four[2].identity = b"new" + b"i" * 13
        four[2].start()
        assert told.wait(DEADLINE_S)
        assert cluster.identities() == before | {2: four[2].identity}
        assert "DFS2" in caplog.text and "answers with another folder than before" in caplog.text


def test_what_is_noted_against_a_server_is_told(four: dict[int, WireServer]) -> None:
    events = Events()
    with cluster_of(four, events=events) as cluster:
        told: list[str] = []
        events.on_servers_changed = lambda: told.append("news")
        cluster.note_fault(3, "sent wrong bytes")
        assert told == ["news"]
        assert cluster.faults()[3].text == "sent wrong bytes"


def test_a_server_that_has_moved_is_used_at_its_new_address_at_once(four: dict[int, WireServer]) -> None:
    elsewhere, impostor = WireServer("DFS2"), WireServer("DFS3")
    try:
        with cluster_of(four) as cluster:
            cluster.connect()
            four[2].close()
            wait_until(lambda: 2 not in cluster.usable())
            moved = [server.address(id) for id, server in (four | {2: impostor}).items()]
            assert impostor.address(2).name == "DFS3"
            named = [ServerAddress(one.id, f"DFS{one.id}", one.host, one.port) for one in moved]
            cluster.readdress(named, CREDENTIALS)
            wait_until(lambda: impostor.accepted > 0)
            assert 2 not in cluster.usable()  # a different server, whatever the config says
            moved[1] = elsewhere.address(2)
            cluster.readdress(moved, CREDENTIALS)
            wait_until(lambda: 2 in cluster.usable())
            assert cluster.servers[1] == elsewhere.address(2)
            assert isinstance(cluster.ask({2: GetPosition()}, stall_s=DEADLINE_S)[2], Answer)
    finally:
        elsewhere.close()
        impostor.close()


def test_a_server_that_answers_is_asked_at_its_new_address_from_then_on(four: dict[int, WireServer]) -> None:
    elsewhere = WireServer("DFS2")
    try:
        with cluster_of(four) as cluster:
            cluster.connect()
            asked = four[2].accepted
            cluster.readdress([*(four[1].address(1), elsewhere.address(2)), *cluster.servers[2:]], CREDENTIALS)
            assert isinstance(cluster.ask({2: GetPosition()}, stall_s=DEADLINE_S)[2], Answer)
            assert (four[2].accepted, elsewhere.accepted) == (asked, 1)
    finally:
        elsewhere.close()
