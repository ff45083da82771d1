"""Dead clients' orphans are swept if they are a day old and unreferenced; whatever is in doubt stays."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import pytest
from support.grid import FakeServer, Fault
from support.memory_map import MemoryMap
from support.stored_files import StoredFiles

from dfs_server.pieces.store import BadPieceError, check_piece
from dfs_server.protocol.messages import DropPieces, Error, Have, Items, ListPieces, Message, PieceList, ReadRange
from dfs_server.protocol.status import Status
from dfsfuse.errors import StoppedError
from dfsfuse.namespace.records import keys
from dfsfuse.upkeep import every_map
from dfsfuse.upkeep.sweep.sweeping import EVERY_NS, MIN_AGE_S, Sweeper, Swept, claim

LARGE = random.Random(1).randbytes(300_001)
SMALL = random.Random(2).randbytes(9_000)
OLD_S = MIN_AGE_S + 1


class Aging(FakeServer):
    """A server that knows how old its pieces are, and lists and drops them accordingly."""

    ages: dict[tuple[bytes, int], int]
    map: Callable[[], dict[bytes, bytes]]
    """This server's map: the namespace's, unless its disk has lost or changed something."""
    default_age_s = OLD_S

    def answer(self, request: Message, payload: bytes) -> tuple[Message, bytes]:
        match request:
            case ListPieces():
                self.asked.append(request)
                if self.before_answer:
                    self.before_answer(request)
                after = request.after or (b"", 0)
                try:
                    if request.after is not None:
                        check_piece(*after)
                except BadPieceError as error:
                    return Error(Status.BAD_REQUEST, str(error)), b""
                left = sorted(piece for piece in self.stored if piece > after)
                listed = tuple((*piece, len(self.stored[piece][1]), self.age(piece)) for piece in left[: request.limit])
                return PieceList(listed, len(left) > request.limit), b""
            case ReadRange(_, _, start, end, limit):
                items = [(key, value) for key, value in sorted(self.map().items()) if start <= key < end]
                return Items(9, tuple(items[:limit]), len(items) > limit), b""
            case DropPieces():
                self.asked.append(request)
                flags = []
                for piece in request.pieces:
                    drops = piece in self.stored and self.age(piece) >= request.min_age_s
                    flags.append(drops)
                    if drops:
                        del self.stored[piece]
                return Have(bytes(flags)), b""
        return super().answer(request, payload)

    def age(self, piece: tuple[bytes, int]) -> int:
        return self.ages.get(piece, self.default_age_s)


@pytest.fixture
def files() -> Iterator[StoredFiles]:
    files = StoredFiles()
    for number in files.grid.servers:
        server = Aging(f"DFS{number}")
        server.ages = {}
        server.map = lambda: files.store.items
        files.grid.servers[number] = server
    yield files
    files.close()


def orphans(files: StoredFiles, count: int = 1, data: bytes = LARGE) -> list[bytes]:
    """Make segments that are on the servers but in no record: their client died before its batch."""
    made = []
    for _ in range(count):
        (segment,) = files.write(900, 0, data)
        del files.store.items[keys.region(900, 0)]
        made.append(segment.id)
    return made


def pieces(files: StoredFiles) -> set[bytes]:
    return {segment for server in files.grid.servers.values() for segment, _ in server.stored}


def sweep(files: StoredFiles, *, drop: bool = True, window: int = 200_000) -> Swept:
    return Sweeper(files.cluster, files.pages, window_pieces=window).sweep(drop=drop)


@pytest.mark.parametrize("window", [5, 9, 200_000])
def test_what_nobody_refers_to_goes_and_everything_else_stays(files: StoredFiles, window: int) -> None:
    kept = {segment.id for ino in range(2, 12) for segment in files.write(ino, ino % 4, LARGE, SMALL)}
    lost = orphans(files, 7) + orphans(files, 3, SMALL)
    assert pieces(files) == kept | set(lost)
    counted = sweep(files, drop=False, window=window)
    assert (counted.orphans, counted.dropped, counted.hindrance) == (80, 0, "")
    assert counted.orphan_bytes == 2 * (7 * len(LARGE) + 3 * len(SMALL))
    assert pieces(files) == kept | set(lost)
    swept = sweep(files, window=window)
    assert (swept.orphans, swept.dropped, swept.hindrance, swept.unreachable) == (80, 80, "", {})
    assert pieces(files) == kept


def test_young_ones_stay_a_batch_may_follow(files: StoredFiles) -> None:
    (segment,) = orphans(files)
    for server in files.grid.servers.values():
        assert isinstance(server, Aging)
        server.default_age_s = MIN_AGE_S - 1
    assert sweep(files).orphans == 0
    assert pieces(files) == {segment}


def test_what_a_batch_refers_to_after_the_lists_were_taken_stays(files: StoredFiles) -> None:
    (segment,) = files.write(900, 0, LARGE)
    record = files.store.items.pop(keys.region(900, 0))
    last = files.grid[4]

    def meanwhile(request: Message) -> None:
        if isinstance(request, ListPieces):
            files.store.items[keys.region(900, 0)] = record

    last.before_answer = meanwhile
    assert sweep(files).orphans == 0
    assert segment.id in pieces(files)


@pytest.mark.parametrize("server", [1, 2, 3, 4])
@pytest.mark.parametrize("page_items", [1, 1000])
def test_what_the_map_of_any_server_refers_to_stays_as_the_one_that_was_read_may_be_damaged(
    files: StoredFiles, server: int, page_items: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(every_map, "PAGE_ITEMS", page_items)
    (segment,) = files.write(900, 0, LARGE)
    files.write(3, 0, SMALL, SMALL)
    undamaged = dict(files.store.items)
    del files.store.items[keys.region(900, 0)]
    good = files.grid[server]
    assert isinstance(good, Aging)
    good.map = lambda: undamaged
    swept = sweep(files)
    assert (swept.orphans, swept.dropped, swept.hindrance) == (0, 0, "")
    good.map = lambda: {**undamaged, keys.region(900, 0): b"flipped"}
    assert "DFS" in sweep(files).hindrance
    assert segment.id in pieces(files)


def test_nothing_goes_if_fewer_than_three_servers_show_their_maps(files: StoredFiles) -> None:
    (segment,) = orphans(files)
    files.down(1, 2)  # after a quorum has shown the end of the log
    assert "too few servers" in sweep(files).hindrance
    assert pieces(files) == {segment}


def test_nothing_goes_without_a_quorums_map(files: StoredFiles) -> None:
    (segment,) = orphans(files)
    files.pages.is_newest = False
    assert "too few servers" in sweep(files).hindrance
    assert pieces(files) == {segment}


@pytest.mark.parametrize("key", [b"a/1", b"x/new", b"\x00", b"zz", b"e0", b"m", b"n0", b"\xfe"])
def test_nothing_goes_while_there_are_keys_of_unknown_kinds(files: StoredFiles, key: bytes) -> None:
    (segment,) = orphans(files)
    files.store.items[key] = b"refers to " + segment
    assert "kinds" in sweep(files).hindrance
    assert pieces(files) == {segment}


def test_nothing_goes_while_a_record_cannot_be_read(files: StoredFiles) -> None:
    (segment,) = orphans(files)
    files.store.items[keys.region(7, 0)] = b"\x93\x63\x90\x90"
    assert "cannot be read" in sweep(files).hindrance
    assert pieces(files) == {segment}


def test_a_server_that_does_not_answer_is_swept_the_next_time(files: StoredFiles) -> None:
    (segment,) = orphans(files)
    files.down(3)
    swept = sweep(files)
    assert (set(swept.unreachable), swept.dropped) == ({3}, 6)
    files.up(3)
    assert sweep(files).dropped == 2
    assert segment not in pieces(files)


def test_one_sweep_a_day_and_one_mount_does_it() -> None:
    store = MemoryMap()
    assert claim(store, EVERY_NS, b"one")
    assert not claim(store, EVERY_NS, b"two")
    assert not claim(store, 2 * EVERY_NS - 1, b"two")
    assert not claim(store, 1, b"two")  # its clock is wrong, by less than a day
    before = store.items[keys.SWEEP]
    assert claim(store, 2 * EVERY_NS, b"two")
    assert store.items[keys.SWEEP] != before
    assert claim(store, 2 * EVERY_NS, b"three", every_ns=0)
    store.items[keys.SWEEP] = b"\x93\x02\xa1x\xa1y"
    assert not claim(store, 9 * EVERY_NS, b"one")  # a record of a newer version, which sweeps itself


def test_it_stops_when_told(files: StoredFiles) -> None:
    orphans(files)
    files.grid[1].fault = Fault.HANG
    with pytest.raises(StoppedError):
        Sweeper(files.cluster, files.pages, wait=lambda _: True).sweep(drop=True)


def test_it_stops_while_it_looks_through_the_maps_of_all(files: StoredFiles) -> None:
    files.write(3, 0, SMALL)
    with pytest.raises(StoppedError):
        every_map.tell_references(files.cluster, lambda _: True, lambda _: None)
