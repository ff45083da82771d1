"""Storing each piece on two servers: first the decisions alone, then with four servers and every fault."""

from __future__ import annotations

import random
from itertools import combinations

import pytest
from support.fake_cluster import FakeCluster
from support.grid import Fault, Grid

from dfs_server.protocol.messages import PutPiece
from dfs_server.protocol.pieces import block_digests, piece_digest
from dfs_server.protocol.status import Status
from dfsfuse.data.placement import ring
from dfsfuse.data.race import Attempt
from dfsfuse.data.striping import split
from dfsfuse.data.upload import (
    DEADLINE_S,
    HEDGE_S,
    Uploaded,
    UploadPlan,
    upload,
)
from dfsfuse.errors import NoSpaceError, ReadOnlyError
from dfsfuse.net.health.pace import Pace
from dfsfuse.net.health.slowness import SLOW_S
from dfsfuse.net.stalls import PIECE_S

ALL = frozenset({1, 2, 3, 4})
ID = b"i" * 16
DATA = random.Random(5).randbytes(1_000_003)


class Bench:
    """A grid, a client and one upload."""

    def __init__(self) -> None:
        self.grid = Grid()
        self.cluster = FakeCluster(self.grid)

    def upload(self, rotation: int = 0) -> Uploaded:
        return upload(ID, DATA, rotation, self.cluster, Pace(HEDGE_S), clock=self.grid.clock)

    def check(self, result: Uploaded) -> None:
        """Check that every piece is stored unchanged on two servers, where the result says."""
        for number, (home, piece) in enumerate(zip(result.homes, split(DATA), strict=True), start=1):
            assert len(set(home)) == 2
            assert result.digests[number - 1] == piece_digest(block_digests(piece))
            for server in home:
                assert self.grid[server].stored[ID, number] == (block_digests(piece), bytes(piece))


@pytest.fixture
def bench() -> Bench:
    return Bench()


# ------------------------------------------------------------------ the plan


def begin(plan: UploadPlan, now: float = 0.0) -> list[Attempt]:
    taken = []
    while (attempt := plan.race.take(now)) is not None:
        taken.append(attempt)
    return taken


def test_all_eight_copies_start_at_once_piece_by_piece() -> None:
    assert begin(UploadPlan(0, ALL)) == [
        Attempt(number, server) for number, home in enumerate(ring(0), start=1) for server in home
    ]


def test_the_pieces_of_a_server_that_fails_go_to_different_ones() -> None:
    plan = UploadPlan(0, ALL)
    lost = [attempt for attempt in begin(plan) if attempt.server == 2]
    for attempt in lost:
        plan.failed(attempt, None, "DFS2: gone")
    replaced = begin(plan)
    assert [attempt.number for attempt in replaced] == [attempt.number for attempt in lost]
    assert len({attempt.server for attempt in replaced}) == 2


def test_a_spared_server_gets_nothing_unless_needed() -> None:
    plan = UploadPlan(0, ALL, spared=frozenset({3}))
    assert 3 not in {attempt.server for attempt in begin(plan)}
    with_three = UploadPlan(0, ALL - {4}, spared=frozenset({3}))
    assert 3 in {attempt.server for attempt in begin(with_three)}


def test_too_few_servers_are_refused_before_anything_is_sent() -> None:
    with pytest.raises(ReadOnlyError, match="only 2 of 4 servers answer"):
        UploadPlan(0, frozenset({1, 2}))


def test_the_second_silent_server_ends_it_at_once() -> None:
    plan = UploadPlan(0, ALL)
    taken = begin(plan)
    plan.failed(taken[0], None, "DFS1: connection lost")
    assert plan.error() is None
    plan.failed(next(a for a in taken if a.server == 3), None, "DFS3: connection lost")
    error = plan.error()
    assert isinstance(error, ReadOnlyError)
    assert "DFS1: connection lost; DFS3: connection lost" in str(error)


def test_two_full_servers_are_no_obstacle_but_three_are() -> None:
    plan = UploadPlan(0, ALL)
    for attempt in begin(plan):
        if attempt.server in (1, 2):
            plan.failed(attempt, Status.NO_SPACE, f"DFS{attempt.server}: full")
    begin(plan)
    assert plan.error() is None
    plan.failed(next(a for a in plan.race.pending() if a.server == 3), Status.NO_SPACE, "DFS3: full")
    error = plan.error()
    assert isinstance(error, NoSpaceError)
    assert "DFS1: full; DFS2: full; DFS3: full" in str(error)


# ------------------------------------------------------------------ against servers


@pytest.mark.parametrize("rotation", range(4))
def test_pieces_lie_as_in_the_missions_table(bench: Bench, rotation: int) -> None:
    result = bench.upload(rotation)
    assert result.homes == ring(rotation)
    bench.check(result)
    assert bench.grid.asked(PutPiece) == {1: 2, 2: 2, 3: 2, 4: 2}


@pytest.mark.parametrize("bad", sorted(ALL))
@pytest.mark.parametrize("fault", [Fault.DOWN, Fault.HANG, Fault.FULL, Fault.BROKEN_DISK, Fault.BABBLE])
def test_any_one_server_may_have_any_fault(bench: Bench, fault: Fault, bad: int) -> None:
    bench.grid[bad].fault = fault
    began = bench.grid.clock()
    result = bench.upload(rotation=bad % 4)
    bench.check(result)
    assert bad not in {server for home in result.homes for server in home}
    assert bench.grid.clock() - began <= (HEDGE_S + 0.1 if fault is Fault.HANG else 0.1)


@pytest.mark.parametrize("answers", [1, 2])
def test_a_server_that_dies_midway(bench: Bench, answers: int) -> None:
    bench.grid[2].dies_after = answers - 1 or 1
    bench.check(bench.upload())


def test_a_server_known_to_be_down_is_not_asked(bench: Bench) -> None:
    bench.cluster.notice_down(2)
    bench.check(bench.upload())
    assert 2 not in bench.grid.asked(PutPiece)
    assert {call.server for call in bench.cluster.started} == {1, 3, 4}


def test_a_hung_server_costs_one_wait_and_not_one_for_each_segment(bench: Bench) -> None:
    bench.grid[3].fault = Fault.HANG
    bench.upload()
    began = bench.grid.clock()
    bench.check(bench.upload())
    assert bench.grid.clock() - began < 0.1


def test_a_slow_server_that_answers_in_the_end_was_not_cancelled(bench: Bench) -> None:
    bench.grid[1].latency_s = HEDGE_S + 0.05
    for server in (2, 3, 4):
        bench.grid[server].latency_s = 0.2
    result = bench.upload()
    bench.check(result)
    assert result.homes == ring(0), "it finished before the servers that were asked in its place"


def test_four_slow_servers_do_not_chase_each_other(bench: Bench) -> None:
    for server in ALL:
        bench.grid[server].latency_s = PIECE_S - 1
    assert bench.upload().homes == ring(0)
    assert len(bench.cluster.started) == 8


@pytest.mark.parametrize("bad", list(combinations(sorted(ALL), 2)))
@pytest.mark.parametrize("fault", [Fault.DOWN, Fault.HANG])
def test_two_servers_gone_means_read_only_in_time(bench: Bench, fault: Fault, bad: tuple[int, int]) -> None:
    for server in bad:
        bench.grid[server].fault = fault
    began = bench.grid.clock()
    if fault is Fault.DOWN:
        with pytest.raises(ReadOnlyError, match=f"DFS{bad[0]}: connection refused"):
            bench.upload()
    else:
        bench.check(bench.upload())  # both homes on the other servers; its batch will get no quorum
    assert bench.grid.clock() - began <= PIECE_S + 0.1


def test_three_hung_servers_are_slow_together_and_not_waited_for_for_ever(bench: Bench) -> None:
    for server in (1, 2, 3):
        bench.grid[server].fault = Fault.HANG
    began = bench.grid.clock()
    with pytest.raises(ReadOnlyError, match="no byte moved"):
        bench.upload()
    assert bench.grid.clock() - began <= SLOW_S + 0.1


def test_three_full_servers(bench: Bench) -> None:
    for server in (1, 2, 3):
        bench.grid[server].fault = Fault.FULL
    with pytest.raises(NoSpaceError, match="DFS2: the disk is full"):
        bench.upload()


def test_a_trickle_ends_with_the_last_deadline(bench: Bench) -> None:
    """Bytes move often enough for every stall deadline, and yet no upload finishes."""
    for server in ALL:
        bench.grid[server].latency_s = 1e6
    began = bench.grid.clock()
    with pytest.raises(ReadOnlyError, match="was not done after 60 s"):
        bench.upload()
    assert bench.grid.clock() - began <= DEADLINE_S + 0.1


@pytest.mark.parametrize("full", sorted(ALL))
def test_a_full_server_is_like_one_that_is_down_for_writing(bench: Bench, full: int) -> None:
    bench.cluster.known_full = {full}
    result = bench.upload()
    bench.check(result)
    assert all(full not in home for home in result.homes)
    assert full not in bench.grid.asked(PutPiece)


def test_with_two_full_servers_nothing_is_sent(bench: Bench) -> None:
    bench.cluster.known_full = {2, 4}
    with pytest.raises(NoSpaceError, match="DFS2 and DFS4 are full, and 2 servers are left for data"):
        bench.upload()
    assert bench.cluster.started == []
    bench.cluster.known_full.clear()
    bench.check(bench.upload())


def test_with_too_few_servers_that_have_room_the_error_is_a_lack_of_space(bench: Bench) -> None:
    """Three servers answer at the end, one of which is full."""
    bench.cluster.known_full = {4}
    bench.grid[1].fault = Fault.DOWN
    with pytest.raises(NoSpaceError, match="DFS4 is full, and 2 servers are left for data"):
        bench.upload()


def test_a_server_that_comes_back_while_another_becomes_full(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here, too, three servers answer at the end, one of which is full."""
    bench.cluster.notice_down(4)
    bench.grid[1].dies_after = 1

    def recheck() -> frozenset[int]:
        bench.cluster.notice_up(4)
        bench.cluster.known_full = {3}
        return bench.cluster.usable()

    monkeypatch.setattr(bench.cluster, "recheck", recheck)
    with pytest.raises(NoSpaceError, match="DFS3 is full, and 2 servers are left for data"):
        bench.upload()
