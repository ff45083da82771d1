"""Finding homes that lack their pieces, on servers in memory that fail, while files change."""

from __future__ import annotations

import random

import pytest
from support.grid import Fault
from support.stored_files import StoredFiles

from dfs_server.protocol.messages import HavePieces, Message
from dfsfuse.data.placement import ring, rotation_of_region
from dfsfuse.errors import StoppedError
from dfsfuse.namespace.ops import bad_copies
from dfsfuse.upkeep.fsck import pieces as fsck_pieces
from dfsfuse.upkeep.fsck.data import Placed
from dfsfuse.upkeep.fsck.pieces import Pieces, check

DATA = random.Random(5).randbytes(9_000)


def write(files: StoredFiles, ino: int, rotation: int, *regions: bytes) -> list[Placed]:
    return [
        Placed(ino, index, segment, ring(rotation_of_region(rotation, index)))
        for index, segment in enumerate(files.write(ino, rotation, *regions))
    ]


def look(files: StoredFiles, placed: list[Placed]) -> Pieces:
    return check(files.cluster, files.pages, placed)


def lose(files: StoredFiles, placed: Placed, number: int, *servers: int) -> None:
    for server in servers:
        del files.grid[server].stored[placed.segment.id, number]


def test_where_all_is_at_home_nothing_is_said(files: StoredFiles) -> None:
    placed = write(files, 2, 0, DATA, DATA[1:]) + write(files, 3, 3, b"ab")
    assert look(files, placed) == Pieces(segments=len(placed))
    assert look(files, []) == Pieces()


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_the_home_that_lacks_a_piece_is_named_and_whether_it_was_the_last(files: StoredFiles, number: int) -> None:
    (placed,) = write(files, 2, 1, DATA)
    first, second = placed.segment.homes[number - 1]
    lose(files, placed, number, first)
    found = look(files, [placed])
    assert [(lack.number, lack.server, lack.is_last) for lack in found.lacks] == [(number, first, False)]
    lose(files, placed, number, second)
    found = look(files, [placed])
    lacks = [(lack.number, lack.server, lack.is_last) for lack in found.lacks]
    assert sorted(lacks) == sorted([(number, first, True), (number, second, True)])


def test_a_copy_elsewhere_is_no_home_but_not_the_last_is_gone(files: StoredFiles) -> None:
    (placed,) = write(files, 2, 1, DATA)
    first, second = placed.segment.homes[0]
    (other, *_) = {1, 2, 3, 4} - {first, second}
    files.grid[other].stored[placed.segment.id, 1] = files.grid[first].stored[placed.segment.id, 1]
    lose(files, placed, 1, first, second)
    assert {(lack.server, lack.is_last) for lack in look(files, [placed]).lacks} == {(first, False), (second, False)}


@pytest.mark.parametrize("fault", [Fault.DOWN, Fault.HANG])
def test_a_server_that_does_not_answer_is_said_and_nothing_is_said_of_its_pieces(
    files: StoredFiles, monkeypatch: pytest.MonkeyPatch, fault: Fault
) -> None:
    monkeypatch.setattr(fsck_pieces, "BATCH_SEGMENTS", 2)
    placed = [one for ino in range(2, 9) for one in write(files, ino, ino % 4, DATA)]
    files.cluster.started.clear()
    files.grid[3].fault = fault
    found = look(files, placed)
    assert (set(found.unreachable), found.lacks, found.segments) == ({3}, [], 7)
    assert [call.server for call in files.cluster.started].count(3) == 1


def test_what_was_written_while_a_server_was_down_is_away_and_lacks_nothing(files: StoredFiles) -> None:
    files.down(2)
    placed = write(files, 2, 0, DATA, DATA)
    files.up(2)
    found = look(files, placed)
    assert (found.away, found.lacks) == (2, [])
    unknown = [Placed(one.ino, one.index, one.segment, None) for one in placed]
    assert look(files, unknown).away == 0


def test_what_is_overwritten_meanwhile_is_not_missed_and_what_is_still_there_is(
    files: StoredFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fsck_pieces, "BATCH_SEGMENTS", 2)
    placed = [one for ino in range(2, 7) for one in write(files, ino, 0, DATA)]

    def meanwhile(message: Message) -> None:
        if isinstance(message, HavePieces):
            for server in files.grid.servers.values():
                server.before_answer = None
            for one in placed:
                for number, homes in enumerate(one.segment.homes, 1):
                    lose(files, one, number, *homes)
            for one in placed[:-1]:
                files.write(one.ino, 0, DATA[1:])

    for server in files.grid.servers.values():
        server.before_answer = meanwhile
    found = look(files, placed)
    assert {lack.placed.ino for lack in found.lacks} == {placed[-1].ino}
    assert len(found.lacks) == 8


def test_it_tells_how_far_it_is_and_stops_when_told(files: StoredFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fsck_pieces, "BATCH_SEGMENTS", 2)
    placed = [one for ino in range(2, 7) for one in write(files, ino, 0, DATA)]
    told: list[int] = []
    check(files.cluster, files.pages, placed, told.append)
    assert told == [2, 2, 1]
    files.grid[1].fault = Fault.HANG
    with pytest.raises(StoppedError):
        check(files.cluster, files.pages, placed, wait=lambda _: True)


def test_a_copy_that_somebody_found_to_be_bad_is_missing_whatever_its_server_says(files: StoredFiles) -> None:
    (placed,) = write(files, 2, 1, DATA)
    first, second = placed.segment.homes[0]
    bad_copies.note(files.store, [(placed.segment.id, 1, first)], 0)
    (lack,) = look(files, [placed]).lacks
    assert (lack.number, lack.server, lack.is_last) == (1, first, False)
    bad_copies.note(files.store, [(placed.segment.id, 1, second)], 0)
    assert {(lack.server, lack.is_last) for lack in look(files, [placed]).lacks} == {(first, True), (second, True)}
