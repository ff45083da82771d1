"""Healing with four servers in memory: what it creates, moves and drops, and what it leaves alone."""

from __future__ import annotations

import random

import pytest
from support.grid import Fault
from support.stored_files import StoredFiles

from dfs_server.protocol.messages import DropPieces, GetPiece, HavePieces, Message, PutPiece, PutPieces
from dfs_server.protocol.pieces import PIECE_NUMBERS, block_digests
from dfsfuse.data.placement import ring
from dfsfuse.errors import ReadOnlyError, StoppedError
from dfsfuse.namespace.records import keys
from dfsfuse.upkeep.heal import survey as heal_survey
from dfsfuse.upkeep.heal.bandwidth import Bucket
from dfsfuse.upkeep.heal.healing import Healer
from dfsfuse.upkeep.heal.moving import LEAST_COST_BYTES

LARGE = random.Random(1).randbytes(700_001)
SMALL = random.Random(2).randbytes(9_000)
TINY = b"abc"


def healer_of(files: StoredFiles) -> Healer:
    return Healer(files.cluster, files.pages, files.store, clock=files.grid.clock)


def write_some(files: StoredFiles, first: int = 2) -> None:
    for ino in range(first, first + 8):
        files.write(ino, ino % 4, LARGE[ino:], LARGE, SMALL[ino:])
        files.write(ino + 100, ino % 4, SMALL[ino:])
        files.write(ino + 200, ino % 4, TINY)


def puts(files: StoredFiles) -> int:
    return sum(files.grid.asked(PutPiece).values()) + sum(files.grid.asked(PutPieces).values())


def test_nothing_is_put_where_all_is_well(files: StoredFiles) -> None:
    write_some(files)
    files.grid.forget_requests()
    report = healer_of(files).heal()
    assert (report.segments, report.lacking, report.astray, report.to_heal, report.still_lacking) == (40, 0, 0, 0, 0)
    assert puts(files) == sum(files.grid.asked(GetPiece).values()) == sum(files.grid.asked(DropPieces).values()) == 0
    assert healer_of(files).survey() == report


def test_no_request_keeps_a_server_busy_for_long(files: StoredFiles) -> None:
    """Looking up thousands of pieces would occupy a server's processor for much of a second, while others wait."""
    files.down(2)
    for ino in range(2, 402):
        files.write(ino, ino % 4, TINY)
    files.up(2)
    largest: dict[type, int] = {HavePieces: 0, DropPieces: 0}

    def note(request: Message) -> None:
        if isinstance(request, HavePieces | DropPieces):
            largest[type(request)] = max(largest[type(request)], len(request.pieces))

    for server in files.grid.servers.values():
        server.before_answer = note
    report = healer_of(files).heal()
    assert report.went_home > 0
    assert 0 < largest[HavePieces] <= 1000
    assert 0 < largest[DropPieces] <= 1000


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_an_empty_server_is_rebuilt(files: StoredFiles, number: int) -> None:
    write_some(files)
    before = dict(files.grid[number].stored)
    files.grid[number].forget()
    found = healer_of(files).survey()
    assert (found.lacking, found.to_heal, found.incomplete) == (40, 40, 0)
    assert found.bytes_to_copy == sum(len(data) for _, data in before.values())
    batches = len(files.store.batches)
    report = healer_of(files).heal()
    assert files.grid[number].stored == before
    files.assert_all_at_home()
    assert (report.lacking, report.still_lacking, report.went_home, report.dropped) == (40, 0, 0, 0)
    assert report.copied == {number: len(before)}
    assert report.bytes_copied == found.bytes_to_copy
    assert len(files.store.batches) == batches  # homes are what they were


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_what_was_written_without_a_server_goes_home(files: StoredFiles, number: int) -> None:
    files.down(number)
    write_some(files)
    files.up(number)
    found = healer_of(files).survey()
    assert (found.lacking, found.astray, found.to_heal) == (0, 40, 40)
    report = healer_of(files).heal()
    files.assert_all_at_home()
    assert (report.went_home, report.still_lacking) == (40, 0)
    assert report.dropped == report.copied[number] > 0
    assert healer_of(files).survey().astray == 0


def test_while_the_server_is_away_all_stays_as_it_is(files: StoredFiles) -> None:
    write_some(files)
    files.down(2)
    write_some(files, first=20)
    state = {number: dict(server.stored) for number, server in files.grid.servers.items()}
    report = healer_of(files).heal()
    assert (report.segments, report.lacking, report.to_heal, report.still_lacking) == (80, 40, 0, 40)
    assert {number: server.stored for number, server in files.grid.servers.items()} == state


def test_a_bad_twin_is_found_out_and_made_anew(files: StoredFiles) -> None:
    """DFS1 has missed the piece, and the other home's copy is bad: the third copy, on a stand-in, is the good one."""
    files.down(1)
    (segment,) = files.write(2, 0, LARGE)
    files.up(1)
    number = next(n for n in PIECE_NUMBERS if 1 in ring(0)[n - 1])
    (twin,) = set(ring(0)[number - 1]) - {1}
    digests, data = files.grid[twin].stored[segment.id, number]
    files.grid[twin].stored[segment.id, number] = (digests, bytes(len(data)))
    report = healer_of(files).heal()
    files.assert_all_at_home()
    assert (report.bad, report.still_lacking) == (1, 0)


def test_a_bad_copy_is_never_spread(files: StoredFiles) -> None:
    (segment,) = files.write(2, 0, LARGE)
    files.grid[1].forget()
    for server in files.grid.servers.values():
        for place, (digests, data) in server.stored.items():
            server.stored[place] = (digests, bytes(len(data)))
    report = healer_of(files).heal()
    assert not files.grid[1].stored
    assert report.still_incomplete == 1
    assert any("do not have the piece's digests" in reason for reason in report.reasons)
    assert files.region(2, 0).segments == (segment,)


def test_a_full_server_is_asked_once_and_the_rest_is_healed(files: StoredFiles) -> None:
    write_some(files)
    files.grid[1].forget()
    files.grid[3].forget()
    files.grid[1].fault = Fault.FULL
    report = healer_of(files).heal()
    assert files.grid[1].stored == {}
    assert report.still_lacking == 40
    assert report.copied.keys() == {3}
    assert list(report.reasons) == ["DFS1: the disk is full"]
    files.grid[1].fault = Fault.NONE
    healer_of(files).heal()
    files.assert_all_at_home()


def test_a_server_that_dies_in_between_leaves_records_true(files: StoredFiles) -> None:
    files.down(2)
    write_some(files)
    files.up(2)
    files.grid[2].dies_after = 4
    report = healer_of(files).heal()
    assert 0 < report.went_home < 40
    for ino in range(2, 10):
        for segment in files.region(ino, 0).segments:
            for number, homes in enumerate(segment.homes, start=1):
                assert set(homes) <= files.grid.holders(segment.id, number)
    files.up(2)
    healer_of(files).heal()
    files.assert_all_at_home()


def test_what_was_overwritten_meanwhile_is_left_alone(files: StoredFiles) -> None:
    """Records are changed before copies are dropped, and only if unchanged: a segment that has left its record stays
    out."""
    files.down(2)
    (old,) = files.write(2, 0, LARGE)
    files.write(3, 0, LARGE)
    files.up(2)
    new = []

    def overwrite(message: Message) -> None:
        files.grid[2].before_answer = None
        new.append(files.write_region(2, 0, 0, LARGE[::-1]))

    files.grid[2].before_answer = overwrite
    report = healer_of(files).heal()
    assert report.went_home == 1
    assert files.region(2, 0).segments == tuple(new)
    dropped = [m.pieces for s in files.grid.servers.values() for m in s.asked if isinstance(m, DropPieces)]
    assert dropped
    assert old.id not in {segment for pieces in dropped for segment, _ in pieces}
    assert [set(home) for home in files.region(3, 0).segments[0].homes] == [set(home) for home in ring(0)]


def test_nothing_is_dropped_before_the_record_says_so(files: StoredFiles) -> None:
    files.down(2)
    write_some(files)
    files.up(2)
    files.store.is_writable = False
    with pytest.raises(ReadOnlyError):
        healer_of(files).heal()
    assert files.grid.asked(DropPieces) == {}
    files.store.is_writable = True
    healer_of(files).heal()
    files.assert_all_at_home()


def test_two_healers_at_once(files: StoredFiles) -> None:
    """A second healer heals everything during each step of the first."""
    files.down(2)
    write_some(files)
    files.up(2)
    state = {"inside": False}

    def interfere(message: Message) -> None:
        if not state["inside"] and isinstance(message, PutPiece | PutPieces | DropPieces):
            state["inside"] = True
            healer_of(files).heal()
            state["inside"] = False

    for server in files.grid.servers.values():
        server.before_answer = interfere
    healer_of(files).heal()
    files.assert_all_at_home()


def test_some_files_only(files: StoredFiles) -> None:
    write_some(files)
    files.grid[1].forget()
    report = healer_of(files).heal([2, 3])
    assert report.segments == 6
    assert {ino for ino in range(2, 10) if files.grid[1].stored.keys() & pieces_of(files, ino)} == {2, 3}


def pieces_of(files: StoredFiles, ino: int) -> set[tuple[bytes, int]]:
    found = [files.region(ino, index).segments[0].id for index in range(3)]
    return {(segment, number) for segment in found for number in PIECE_NUMBERS}


def test_in_small_batches_and_windows(files: StoredFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heal_survey, "BATCH_SEGMENTS", 3)
    monkeypatch.setattr("dfsfuse.upkeep.heal.moving.WINDOW_MOVES", 2)
    monkeypatch.setattr("dfsfuse.upkeep.heal.homes.STEP_RECORDS", 2)
    files.down(4)
    write_some(files)
    files.up(4)
    heard = []
    healer_of(files).heal(on_progress=lambda report: heard.append(report.bytes_copied))
    files.assert_all_at_home()
    assert heard == sorted(heard)
    assert len(set(heard)) > 10


def test_progress_shows_how_many_segments_have_all_their_copies_by_now(
    files: StoredFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dfsfuse.upkeep.heal.moving.WINDOW_MOVES", 2)
    write_some(files)
    files.grid[1].forget()
    heard = []
    report = healer_of(files).heal(on_progress=lambda report: heard.append(report.healed))
    assert heard == sorted(heard)
    assert len(set(heard)) > 2
    assert heard[-1] == report.healed == report.lacking


def test_records_that_cannot_be_read_are_counted(files: StoredFiles) -> None:
    files.write(2, 0, SMALL)
    files.store.transact(lambda tx: tx.put(keys.region(3, 0), b"?"))
    assert healer_of(files).heal().unreadable == 1


def test_a_copy_that_a_reader_found_bad_is_made_anew(files: StoredFiles) -> None:
    large, small = files.write(2, 0, LARGE, SMALL)
    server, other = ring(0)[0]
    digests, data = files.grid[server].stored[large.id, 1]
    rotten = b"\0" * len(data)
    files.grid[server].stored[large.id, 1] = (block_digests(rotten), rotten)
    home = ring(1)[2][0]
    del files.grid[home].stored[small.id, 3]
    report = healer_of(files).restore([(large, 1, server), (small, 3, home)])
    assert files.grid[server].stored[large.id, 1] == (digests, data)
    files.assert_all_at_home()
    assert report.copied == {server: 1, home: 1}
    assert other in files.grid.asked(GetPiece)


def test_it_moves_no_more_than_the_bucket_gives(files: StoredFiles) -> None:
    write_some(files)
    files.grid[1].forget()
    clock, waits = files.grid.clock, []

    def wait(seconds: float) -> bool:
        waits.append(seconds)
        clock.wait_until(clock() + seconds)
        return False

    bucket = Bucket(1_000_000)
    began = clock()
    report = Healer(files.cluster, files.pages, files.store, bucket=bucket, wait=wait, clock=clock).heal()
    bucket_wait = bucket.take(0, clock())
    took = clock() + bucket_wait - began
    assert took >= report.bytes_copied / 1_000_000 - 1
    assert took < (report.bytes_copied + 80 * LEAST_COST_BYTES) / 1_000_000 + 1


def test_it_stops_when_it_is_told_to(files: StoredFiles) -> None:
    write_some(files)
    files.grid[1].forget()
    count = iter(range(100))
    with pytest.raises(StoppedError):
        Healer(files.cluster, files.pages, files.store, wait=lambda _: next(count) == 0, clock=files.grid.clock).heal()
    for server in files.grid.servers.values():
        server.fault = Fault.HANG
    began = files.grid.clock()
    with pytest.raises(StoppedError):
        Healer(files.cluster, files.pages, files.store, wait=lambda _: True, clock=files.grid.clock).heal()
    assert files.grid.clock() - began < 1
