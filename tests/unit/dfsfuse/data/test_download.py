"""Fetching and verifying: which servers to ask, what to accept, when to give up."""

from __future__ import annotations

import logging
import random

import pytest
from support.fake_cluster import FakeCluster
from support.grid import Fault, Grid

from dfs_server.protocol.messages import GetPiece
from dfs_server.protocol.pieces import BLOCK_BYTES, block_count, block_digests
from dfsfuse.data.block_cache import Run
from dfsfuse.data.download import DEADLINE_S, HEDGE_S, DownloadPlan, download
from dfsfuse.data.extents import Segment
from dfsfuse.data.placement import Homes, choose_sources
from dfsfuse.data.race import Attempt
from dfsfuse.data.striping import piece_lengths, split
from dfsfuse.data.upload import upload
from dfsfuse.errors import IncompleteError
from dfsfuse.net.health.pace import Pace
from dfsfuse.net.health.slowness import SLOW_S
from dfsfuse.net.stalls import PIECE_S

ALL = frozenset({1, 2, 3, 4})
ID = b"i" * 16
DATA = random.Random(6).randbytes(4 * 200_000 + 3)
PIECES = [bytes(piece) for piece in split(DATA)]
WHOLE = {number: range(block_count(length)) for number, length in enumerate(piece_lengths(len(DATA)), start=1)}


class Bench:
    """A grid that holds one segment, placed with rotation 0, and a client."""

    def __init__(self) -> None:
        self.grid = Grid()
        self.cluster = FakeCluster(self.grid)
        self.pace = Pace(HEDGE_S)
        stored = upload(ID, DATA, 0, self.cluster, Pace(1.0), clock=self.grid.clock)
        self.segment = Segment(ID, len(DATA), stored.homes, stored.digests)
        self.bad: list[tuple[int, int]] = []
        self.grid.forget_requests()
        self.cluster.started.clear()

    def download(self, wanted: dict[int, range] = WHOLE) -> list[Run]:
        return download(
            self.segment,
            wanted,
            self.cluster,
            self.pace,
            on_bad=lambda _segment, number, server: self.bad.append((number, server)),
            clock=self.grid.clock,
        )

    def took_s(self) -> float:
        """Download everything, which must be right, and return how long it took."""
        began = self.grid.clock()
        assert [run.data for run in self.download()] == PIECES
        return self.grid.clock() - began


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_each_server_sends_one_quarter(bench: Bench) -> None:
    runs = bench.download()
    assert [run.data for run in runs] == PIECES
    assert [(run.segment, run.number, run.first_block) for run in runs] == [(ID, n, 0) for n in (1, 2, 3, 4)]
    assert bench.grid.asked(GetPiece) == {1: 1, 2: 1, 3: 1, 4: 1}


def test_a_few_blocks_are_asked_for_and_no_more(bench: Bench) -> None:
    last = block_count(len(PIECES[1])) - 1
    one, other = bench.download({1: range(1, 2), 2: range(last - 1, last + 1)})
    assert one.data == PIECES[0][BLOCK_BYTES : 2 * BLOCK_BYTES]
    assert other.data == PIECES[1][(last - 1) * BLOCK_BYTES :]
    assert other.block(last) == PIECES[1][last * BLOCK_BYTES :]
    requests = [call.request for call in bench.cluster.started]
    assert requests == [GetPiece(ID, 1, 1, 1), GetPiece(ID, 2, last - 1, 2)]


def test_what_is_handed_out_cannot_be_changed(bench: Bench) -> None:
    assert all(run.data.readonly for run in bench.download())


def test_a_slow_first_source_is_waited_for_beside_the_other_one(bench: Bench) -> None:
    """Part of one piece is requested directly; when that takes long, a race continues from there."""
    (first, second) = choose_sources(bench.segment.homes, ALL)[1]
    bench.grid[first].latency_s = HEDGE_S + 0.2
    began = bench.grid.clock()
    assert bench.download({1: range(1)})[0].data == PIECES[0][:BLOCK_BYTES]
    assert bench.grid.clock() - began < HEDGE_S + 0.1
    assert [call.server for call in bench.cluster.started] == [first, second]
    assert first in bench.cluster.health.data.now()

    bench.cluster.started.clear()
    bench.cluster.health.data.answered(first)
    bench.grid[second].latency_s = 3.0
    began = bench.grid.clock()
    assert bench.download({1: range(1)})[0].data == PIECES[0][:BLOCK_BYTES]
    assert bench.grid.clock() - began < HEDGE_S + 0.3, "the late answer must be used all the same"
    assert [call.server for call in bench.cluster.started] == [first, second], "no server may be asked twice"


def test_an_answer_ends_the_sparing_if_only_an_error_and_that_it_is_down_does_not(bench: Bench) -> None:
    answering, refusing = choose_sources(bench.segment.homes, ALL)[1]
    bench.cluster.health.data.lagged((answering, refusing))
    bench.grid[answering].fault = Fault.BROKEN_DISK
    bench.grid[refusing].fault = Fault.DOWN
    with pytest.raises(IncompleteError):
        bench.download({1: range(1)})
    assert bench.cluster.health.data.now() == {refusing}


@pytest.mark.parametrize("fault", [fault for fault in Fault if fault not in (Fault.NONE, Fault.FULL)])
def test_whatever_the_first_source_does_the_second_one_is_asked_once(bench: Bench, fault: Fault) -> None:
    (first, second) = choose_sources(bench.segment.homes, ALL)[2]
    bench.grid[first].fault = fault
    assert bench.download({2: range(1, 2)})[0].data == PIECES[1][BLOCK_BYTES : 2 * BLOCK_BYTES]
    assert [call.server for call in bench.cluster.started] == [first, second]


def test_a_server_that_dies_in_the_middle_of_many_reads(bench: Bench) -> None:
    (first, second) = choose_sources(bench.segment.homes, ALL)[3]
    bench.grid[first].dies_after = 2
    for _ in range(4):
        assert bench.download({3: range(1)})[0].data == PIECES[2][:BLOCK_BYTES]
    assert [call.server for call in bench.cluster.started] == [first, first, first, second, second]


FAULTS = [fault for fault in Fault if fault not in (Fault.NONE, Fault.FULL)]


@pytest.mark.parametrize("bad", sorted(ALL))
@pytest.mark.parametrize("fault", FAULTS)
def test_any_one_server_may_have_any_fault(bench: Bench, fault: Fault, bad: int) -> None:
    bench.grid[bad].fault = fault
    assert bench.took_s() <= (HEDGE_S + 0.1 if fault is Fault.HANG else 0.1)


@pytest.mark.parametrize("fault", [Fault.CORRUPT, Fault.TRUNCATE, Fault.WRONG_DIGESTS])
def test_a_lying_server_is_named_in_the_log(bench: Bench, fault: Fault, caplog: pytest.LogCaptureFixture) -> None:
    bench.grid[2].fault = fault
    with caplog.at_level(logging.WARNING):
        bench.download({2: range(1)})
    assert len(caplog.records) == 1
    assert f"DFS2 has a bad P2 of segment {ID.hex()}" in caplog.text
    assert [server for server, _ in bench.cluster.noted] == [2], "it must be remembered for `dfc status`"
    assert bench.bad == [(2, 2)], "it must be reported to the healer"


def test_digests_of_another_piece_are_not_believed(bench: Bench) -> None:
    server = bench.grid[1]
    server.stored[ID, 1] = server.stored[ID, 2]
    assert bench.download({1: range(1)})[0].data == PIECES[0][:BLOCK_BYTES]
    assert bench.bad == [(1, 1)]


def test_a_piece_of_another_segment_is_not_believed(bench: Bench) -> None:
    other = bytes(reversed(PIECES[0]))
    bench.grid[1].stored[ID, 1] = (block_digests(other), other)
    assert bench.download({1: range(1)})[0].data == PIECES[0][:BLOCK_BYTES]
    assert bench.bad == [(1, 1)]


def test_a_wiped_server_is_replaced(bench: Bench) -> None:
    bench.grid[1].forget()
    bench.took_s()
    assert bench.bad == [(1, 1)], "the missing piece must be reported to the healer"
    assert bench.cluster.noted == [], "a missing piece is not a fault"


def test_a_server_that_was_never_a_home_owes_nothing(bench: Bench) -> None:
    for server in (1, 4):
        bench.grid[server].fault = Fault.DOWN
    with pytest.raises(IncompleteError):
        bench.download({1: range(1)})
    assert bench.bad == []


def test_a_server_known_to_be_down_is_not_asked(bench: Bench) -> None:
    bench.cluster.notice_down(3)
    bench.took_s()
    assert {call.server for call in bench.cluster.started} == {1, 2, 4}


def test_a_hung_server_costs_one_wait_and_not_one_for_each_read(bench: Bench) -> None:
    bench.grid[3].fault = Fault.HANG
    assert HEDGE_S <= bench.took_s() <= HEDGE_S + 0.1
    assert bench.took_s() < 0.1


def test_on_a_slow_link_patience_is_learned(bench: Bench) -> None:
    for server in ALL:
        bench.grid[server].latency_s = 1.0
    bench.took_s()
    bench.cluster.started.clear()
    bench.took_s()
    assert len(bench.cluster.started) == 4, "no second request, although each answer took longer than the hedge time"


@pytest.mark.parametrize("fault", [Fault.DOWN, Fault.HANG, Fault.CORRUPT])
def test_a_piece_without_a_good_copy(bench: Bench, fault: Fault) -> None:
    bench.grid[1].fault = fault
    bench.grid[4].forget()
    began = bench.grid.clock()
    with pytest.raises(IncompleteError) as caught:
        bench.download()
    text = str(caught.value)
    assert f"P1 of segment {ID.hex()}" in text
    assert "DFS1" in text
    assert "DFS4: no such piece" in text
    assert caught.value.away == (set() if fault is Fault.CORRUPT else {1}), "may have it, does not answer"
    assert bench.grid.clock() - began <= PIECE_S + 0.1
    assert bench.download({3: range(1)})[0].data == PIECES[2][:BLOCK_BYTES], "the rest must still be readable"


@pytest.mark.parametrize(("fault", "limit_s"), [(Fault.DOWN, PIECE_S), (Fault.HANG, SLOW_S + PIECE_S)])
def test_with_all_servers_gone_it_ends(bench: Bench, fault: Fault, limit_s: float) -> None:
    for server in ALL:
        bench.grid[server].fault = fault
    began = bench.grid.clock()
    with pytest.raises(IncompleteError):
        bench.download()
    assert bench.grid.clock() - began <= limit_s


def test_a_trickle_ends_with_the_last_deadline(bench: Bench) -> None:
    for server in ALL:
        bench.grid[server].latency_s = 1e6
    began = bench.grid.clock()
    with pytest.raises(IncompleteError, match="was not done after 30 s"):
        bench.download()
    assert bench.grid.clock() - began <= DEADLINE_S + 0.1


def test_a_piece_that_was_moved_since_is_found(bench: Bench) -> None:
    bench.grid[3].stored[ID, 1] = bench.grid[1].stored.pop((ID, 1))
    del bench.grid[4].stored[ID, 1]
    bench.took_s()


# ------------------------------------------------------------------ the plan

HANDED_OFF: Homes = ((1, 3), (2, 1), (3, 2), (3, 1))


def plan(usable: frozenset[int] = ALL, homes: Homes = HANDED_OFF) -> DownloadPlan:
    segment = Segment(ID, len(DATA), homes, (bytes(32),) * 4)
    return DownloadPlan(segment, {1: range(1)}, ALL, usable, HEDGE_S)


def order_of(plan: DownloadPlan) -> list[int]:
    servers = []
    while (attempt := plan.race.take(0.0)) is not None:
        servers.append(attempt.server)
        plan.failed(attempt, f"DFS{attempt.server}: no such piece", silent=False)
    return servers


def test_homes_come_first_and_strangers_last() -> None:
    assert order_of(plan()) == [1, 3, 2, 4]
    assert order_of(plan(usable=frozenset({3, 4}))) == [3, 1, 4, 2]


def test_the_error_says_what_each_server_said() -> None:
    hopeless = plan()
    order_of(hopeless)
    assert str(hopeless.error()).endswith(
        "DFS1: no such piece; DFS3: no such piece; DFS2: no such piece; DFS4: no such piece"
    )


def test_there_is_hope_while_somebody_is_asked() -> None:
    hopeful = plan()
    assert hopeful.race.take(0.0) == Attempt(1, 1)
    assert hopeful.error() is None


def test_only_servers_that_should_have_the_piece_are_named_as_away() -> None:
    """Another silent server may come back as well, but would not have the piece."""
    hopeless = plan()
    while (attempt := hopeless.race.take(0.0)) is not None:
        hopeless.failed(attempt, f"DFS{attempt.server} is said to fail", silent=attempt.server in {1, 2})
    error = hopeless.error()
    assert error is not None
    assert error.away == {1}
