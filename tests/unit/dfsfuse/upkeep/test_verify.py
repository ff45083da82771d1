"""Every copy of every piece is fetched and checked; nothing that a server says about its pieces is trusted."""

from __future__ import annotations

import random

import pytest
from support.grid import Fault
from support.stored_files import StoredFiles

from dfs_server.protocol.messages import GetPiece, Message
from dfs_server.protocol.pieces import block_digests
from dfsfuse.data.extents import Segment
from dfsfuse.errors import StoppedError
from dfsfuse.namespace.records import keys
from dfsfuse.upkeep.verify import WINDOW_BYTES, Verified, Verifier

LARGE = random.Random(1).randbytes(300_001)
SMALL = random.Random(2).randbytes(9_000)


def verify(files: StoredFiles, *inos: int) -> Verified:
    paths = {ino: b"/%d" % ino for ino in inos}
    return Verifier(files.cluster, files.pages).verify(paths)


def spoil(files: StoredFiles, server: int, segment: Segment, number: int, *, with_digests: bool = False) -> None:
    """Flip a bit of a piece; with `with_digests`, fit its digests to it, as a lying server would."""
    digests, data = files.grid[server].stored[segment.id, number]
    data = bytes([data[0] ^ 1]) + data[1:]
    files.grid[server].stored[segment.id, number] = (block_digests(data) if with_digests else digests, data)


def test_both_copies_of_everything_are_fetched_and_checked(files: StoredFiles) -> None:
    files.write(2, 0, LARGE, LARGE)
    files.write(3, 3, SMALL)
    files.write(4, 1, b"ab")
    files.write(5, 1, SMALL)
    files.grid.forget_requests()
    found = verify(files, 2, 3, 4)
    assert (found.files, found.segments, found.copies, found.bad, found.unreachable) == (3, 4, 28, [], {})
    assert found.verified_bytes == 2 * (2 * len(LARGE) + len(SMALL) + 2)
    assert sum(files.grid.asked(GetPiece).values()) == 28


def test_everything_is_also_what_has_no_name_or_was_moved_while_names_were_listed(files: StoredFiles) -> None:
    files.write(2, 0, LARGE)
    (unnamed,) = files.write(3, 0, SMALL)
    server = unnamed.homes[0][0]
    spoil(files, server, unnamed, 1)
    listed = {2: b"/2"}
    assert verify(files, 2).bad == []
    found = Verifier(files.cluster, files.pages).verify(listed, everything=True)
    assert (found.files, found.segments, found.copies) == (2, 2, 15)
    assert [(bad.path, bad.number, bad.server) for bad in found.bad] == [(b"inode 3", 1, server)]


@pytest.mark.parametrize("with_digests", [False, True])
@pytest.mark.parametrize("number", [1, 2, 3, 4])
@pytest.mark.parametrize("data", [LARGE, SMALL])
def test_a_flipped_bit_is_found_on_the_server_where_it_is(
    files: StoredFiles, data: bytes, number: int, with_digests: bool
) -> None:
    (segment,) = files.write(2, 1, data)
    for server in segment.homes[number - 1]:
        before = dict(files.grid[server].stored)
        spoil(files, server, segment, number, with_digests=with_digests)
        found = verify(files, 2)
        (bad,) = found.bad
        assert (bad.path, bad.number, bad.server, bad.is_missing, bad.has_twin) == (b"/2", number, server, False, True)
        assert f"DFS{server}" in bad.text
        assert found.lost == []
        files.grid[server].stored = before


def test_a_missing_copy_is_found(files: StoredFiles) -> None:
    (segment,) = files.write(2, 2, LARGE)
    first, second = segment.homes[2]
    del files.grid[first].stored[segment.id, 3]
    found = verify(files, 2)
    assert [(bad.server, bad.number, bad.is_missing, bad.has_twin) for bad in found.bad] == [(first, 3, True, True)]
    spoil(files, second, segment, 3)
    found = verify(files, 2)
    assert sorted((bad.server, bad.is_missing, bad.has_twin) for bad in found.bad) == sorted(
        [(first, True, False), (second, False, False)]
    )
    assert found.lost == [b"/2"]


@pytest.mark.parametrize("fault", [Fault.DOWN, Fault.HANG])
def test_a_server_that_does_not_answer_is_asked_once_and_said(files: StoredFiles, fault: Fault) -> None:
    for ino in range(2, 40):
        files.write(ino, ino % 4, SMALL)
    files.grid[3].fault = fault
    found = verify(files, *range(2, 40))
    assert set(found.unreachable) == {3}
    assert (found.bad, found.copies, found.unverified) == ([], 38 * 6, 38 * 2)
    assert len(files.grid[3].asked) <= 100


@pytest.mark.parametrize("fault", [Fault.CORRUPT, Fault.TRUNCATE, Fault.WRONG_DIGESTS, Fault.BROKEN_DISK, Fault.BABBLE])
def test_whatever_a_server_sends_instead_is_bad(files: StoredFiles, fault: Fault) -> None:
    files.write(2, 0, LARGE, SMALL)
    files.grid[2].fault = fault
    found = verify(files, 2)
    assert {bad.server for bad in found.bad} == {2}
    assert len(found.bad) == 4
    assert found.lost == []


def test_what_is_overwritten_meanwhile_is_not_missed(files: StoredFiles) -> None:
    (segment,) = files.write(2, 0, SMALL)

    def meanwhile(message: Message) -> None:
        if isinstance(message, GetPiece) and message.segment == segment.id:
            for server in files.grid.servers.values():
                server.before_answer = None
                server.stored = {piece: held for piece, held in server.stored.items() if piece[0] != segment.id}
            files.write(2, 0, LARGE)

    for server in files.grid.servers.values():
        server.before_answer = meanwhile
    found = verify(files, 2)
    assert (found.bad, found.copies) == ([], 0)


def test_a_record_that_cannot_be_read_is_said(files: StoredFiles) -> None:
    files.write(2, 0, SMALL)
    files.write(3, 0, SMALL)
    files.store.items[keys.region(3, 0)] = b"\x93\x63\x90\x90"
    found = verify(files, 2, 3)
    assert (found.unreadable, found.copies) == ([b"/3"], 8)


def test_memory_is_bounded(files: StoredFiles) -> None:
    for ino in range(2, 9):
        files.write(ino, 0, bytes(4 * 1024 * 1024))
    files.cluster.started.clear()
    answered = 0
    largest = 0

    def on_progress(size: int) -> None:
        nonlocal answered, largest
        answered += 1
        largest = max(largest, (len(files.cluster.started) - answered + 1) * size)

    Verifier(files.cluster, files.pages, on_progress=on_progress).verify(dict.fromkeys(range(2, 9), b""))
    assert answered == 7 * 8
    assert largest <= WINDOW_BYTES


def test_it_stops_when_told(files: StoredFiles) -> None:
    files.write(2, 0, SMALL)
    files.grid[1].fault = Fault.HANG
    with pytest.raises(StoppedError):
        Verifier(files.cluster, files.pages, wait=lambda _: True).verify({2: b"/2"})
