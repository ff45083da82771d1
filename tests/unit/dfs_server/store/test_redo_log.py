"""The redo log: appended records are read back, whatever is left of an unfinished one; and damage is noticed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from dfs_server.protocol import batches
from dfs_server.protocol.ballots import Ballot
from dfs_server.protocol.batches import Batch
from dfs_server.store import redo_log
from dfs_server.store.acceptor import ParsedBatch
from dfs_server.store.redo_log import Found, Kind, Record, RedoLog

EPOCH, OTHER = b"epoch--1", b"epoch--2"
BALLOT = Ballot(3, b"client01")


def vote(slot: int, data: bytes = b"") -> Record:
    encoded = batches.encode(Batch(batches.FORMAT, b"", b"client01", slot, 0, puts=((b"k", data),)))
    return Record(Kind.VOTE, BALLOT, slot, ParsedBatch.of(encoded))


RECORDS = [Record(Kind.PROMISE, BALLOT), vote(1, b"one"), vote(2, bytes(100)), vote(3)._replace(kind=Kind.CHOSEN)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    redo_log.create(tmp_path / redo_log.FILE_NAME, is_new=True)
    return tmp_path / redo_log.FILE_NAME


@pytest.fixture
def file(path: Path) -> Iterator[RedoLog]:
    file = RedoLog(path, EPOCH)
    yield file
    file.close()


def read(path: Path, epoch: bytes = EPOCH) -> list[Found]:
    return list(redo_log.read(path, epoch))


def test_what_was_appended_is_read_back_in_order(path: Path, file: RedoLog) -> None:
    assert read(path) == []
    file.append(RECORDS[:1])
    file.append(RECORDS[1:3])
    file.append(RECORDS[3:])
    assert read(path) == [Found(record, is_after_damage=False) for record in RECORDS]


def test_a_new_epoch_makes_what_was_there_void(path: Path, file: RedoLog) -> None:
    file.append(RECORDS)
    file.begin(OTHER)
    assert read(path, OTHER) == []
    file.append(RECORDS[:1])
    assert read(path, OTHER) == [Found(RECORDS[0], is_after_damage=False)]
    file.append([vote(1, bytes(5000))])
    assert [found.record.slot for found in read(path, OTHER)] == [0, 1]


def test_a_file_from_before_is_written_anew_from_its_beginning(path: Path, file: RedoLog) -> None:
    file.append(RECORDS)
    again = RedoLog(path, OTHER)
    again.append(RECORDS[1:2])
    again.close()
    assert read(path, OTHER) == [Found(RECORDS[1], is_after_damage=False)]


def test_it_grows_in_large_steps_and_no_more_when_it_is_used_again(path: Path, file: RedoLog) -> None:
    assert not file.is_full
    while not file.is_full:
        file.append([vote(1, bytes(100_000))])
    size = path.stat().st_size
    assert size % redo_log.GROW_BYTES == 0
    assert redo_log.MAX_BYTES <= size <= redo_log.MAX_BYTES + 2 * redo_log.GROW_BYTES
    file.begin(OTHER)
    assert not file.is_full
    file.append([vote(1, bytes(100_000))])
    assert path.stat().st_size == size


def test_the_last_record_may_be_there_by_any_part_and_then_it_was_never_answered(path: Path, file: RedoLog) -> None:
    file.append(RECORDS[:2])
    start = file._end
    file.append(RECORDS[2:3])
    whole, end = path.read_bytes(), file._end
    assert whole[end - 2 : end] == b"\xc4\0"
    end -= 1  # the last byte is a zero, like the empty space of the file
    for cut in range(start, end):
        path.write_bytes(whole[:cut] + bytes(len(whole) - cut))
        assert read(path) == [Found(record, is_after_damage=False) for record in RECORDS[:2]]
        path.write_bytes(whole[:cut])
        assert len(read(path)) == 2


def test_any_flipped_bit_before_another_record_is_noticed(path: Path, file: RedoLog) -> None:
    file.append(RECORDS[:1])
    start = file._end
    file.append(RECORDS[1:2])
    end = file._end
    file.append(RECORDS[2:])
    whole = path.read_bytes()
    for at in range(start, end):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :])
        assert read(path) == [
            Found(RECORDS[0], is_after_damage=False),
            Found(RECORDS[2], is_after_damage=True),
            Found(RECORDS[3], is_after_damage=False),
        ], at


def test_each_record_waits_for_the_disk(path: Path, file: RedoLog, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[bytes] = []
    monkeypatch.setattr(os, "fdatasync", lambda _: synced.append(path.read_bytes()))
    for record in RECORDS:
        file.append([record])
        assert synced.pop() == path.read_bytes()


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "none")
    assert list(redo_log.read_whatever_epoch(tmp_path / "none")) == []


def test_what_was_written_last_is_found_whatever_its_epoch(path: Path, file: RedoLog) -> None:
    assert list(redo_log.read_whatever_epoch(path)) == []
    file.append(RECORDS)
    assert [found.record for found in redo_log.read_whatever_epoch(path)] == RECORDS


def test_epochs_are_told_apart_and_which_is_later(path: Path) -> None:
    epoch = redo_log.epoch_after(redo_log.NO_EPOCH)
    for later in (redo_log.epoch_after(epoch), redo_log.epoch_after(redo_log.epoch_after(epoch))):
        file = RedoLog(path, later)
        file.append(RECORDS[:1])
        file.close()
        assert redo_log.is_ahead_of(path, epoch)
        assert not redo_log.is_ahead_of(path, later)
        assert not redo_log.is_ahead_of(path, redo_log.epoch_after(later))
    path.write_bytes(path.read_bytes()[:20])
    assert not redo_log.is_ahead_of(path, epoch)
    last = b"\xff" * redo_log.EPOCH_BYTES
    assert redo_log.epoch_after(last)[:4] == bytes(4)
    assert not redo_log.is_ahead_of(path.with_name("none"), epoch)
