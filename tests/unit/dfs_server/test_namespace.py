"""Requests about pieces to a real daemon: put many, list, drop, replace, findings; and invalid requests."""

from __future__ import annotations

import contextlib
import random
import sqlite3
from pathlib import Path

import pytest
from support.daemons import House, StartHouse, eventually
from support.raw_client import RawClient, ServerError

from dfs_server.namespace import Namespace
from dfs_server.protocol import batches
from dfs_server.protocol.ballots import Ballot
from dfs_server.protocol.batches import Batch
from dfs_server.protocol.messages import (
    Accept,
    AcceptedAt,
    Chosen,
    Done,
    DropPieces,
    Findings,
    GetFindings,
    GetPiece,
    GetPieces,
    GetStatus,
    Have,
    HavePieces,
    ListPieces,
    Message,
    PieceList,
    Promise,
    PutPiece,
    PutPieces,
    ReadKeys,
    ServerStatus,
    SmallPieces,
)
from dfs_server.protocol.pieces import BLOCK_BYTES, block_digests
from dfs_server.protocol.status import Status
from dfs_server.store.store import NamespaceStore

A, B, C = (bytes([number]) * 16 for number in (1, 2, 3))
DATA = random.Random(1).randbytes(2 * BLOCK_BYTES + 77)
BALLOT = Ballot(1, b"client01")


def status_of(client: RawClient, request: Message, payload: bytes = b"") -> Status:
    with pytest.raises(ServerError) as caught:
        client.ask(request, payload)
    return caught.value.status


def listed(client: RawClient, after: tuple[bytes, int] | None = None, limit: int = 100) -> PieceList:
    found = client.ask(ListPieces(after, limit))
    assert isinstance(found, PieceList)
    return found


class TestSinglePieces:
    def test_put_many_and_list_them(self, house: House) -> None:
        client = house.client()
        client.put_piece(A, 2, DATA)
        assert client.ask(PutPieces(((B, 1, b"small"), (A, 1, b"")))) == Done()
        assert client.call(GetPiece(B, 1))[1] == b"small"
        assert [piece[:3] for piece in listed(client).pieces] == [(A, 1, 0), (A, 2, len(DATA)), (B, 1, 5)]
        assert all(0 <= piece[3] < 60 for piece in listed(client).pieces)
        page = listed(client, limit=2)
        assert (len(page.pieces), page.more) == (2, True)
        rest = listed(client, page.pieces[-1][:2], 2)
        assert ([piece[:2] for piece in rest.pieces], rest.more) == ([(B, 1)], False)
        assert listed(house.client("bob")).pieces == ()

    def test_many_small_pieces_are_read_at_once(self, house: House) -> None:
        client = house.client()
        client.put_piece(A, 2, DATA)
        client.ask(PutPieces(((B, 1, b"small"), (B, 2, b""), (C, 4, b"other"))))
        asked = ((C, 4), (B, 3), (B, 1), (A, 2), (B, 2), (C, 4))
        assert client.ask(GetPieces(asked)) == SmallPieces((b"other", None, b"small", None, b"", b"other"))
        assert house.client("bob").ask(GetPieces(asked)) == SmallPieces((None,) * 6)
        assert client.ask(GetPieces(())) == SmallPieces(())

    def test_a_reply_of_small_pieces_is_bounded(self, house: House) -> None:
        client = house.client()
        large = tuple((bytes([100 + number]) * 16, 1, bytes([number]) * 32_768) for number in range(40))
        client.ask(PutPieces(large[:32]))
        client.ask(PutPieces((*large[32:], (B, 1, b"x"))))
        reply = client.ask(GetPieces((*((segment, number) for segment, number, _ in large), (B, 1))))
        assert isinstance(reply, SmallPieces)
        assert list(reply.data) == [data for _, _, data in large[:32]] + [None] * 9

    def test_any_limit_is_brought_within_bounds(self, house: House) -> None:
        client = house.client()
        client.ask(PutPieces(((A, 1, b"x"), (A, 2, b"x"))))
        assert len(listed(client, limit=0).pieces) == 1
        assert len(listed(client, limit=-5).pieces) == 1
        assert len(listed(client, limit=2**60).pieces) == 2

    def test_drop_and_take_back(self, start_house: StartHouse) -> None:
        house = start_house(grace_period_s=0.0, sweep_interval_s=0.01)
        client = house.client()
        client.put_piece(A, 1, DATA)
        client.put_piece(B, 1, DATA)
        assert client.ask(DropPieces(((A, 1), (B, 1), (C, 1)), 3600)) == Have(b"\0\0\0")
        assert client.ask(DropPieces(((A, 1), (C, 1)), 0)) == Have(b"\1\0")
        assert client.ask(HavePieces(((A, 1), (B, 1)))) == Have(b"\0\1")
        eventually(lambda: house.files() == {f"alice/pieces/02/{B.hex()}.1"})
        assert client.put_piece(A, 1, DATA) == Done()
        assert client.ask(HavePieces(((A, 1), (B, 1)))) == Have(b"\1\1")

    def test_replace(self, house: House) -> None:
        client = house.client()
        client.put_piece(A, 1, b"bad")
        digests = block_digests(DATA)
        assert status_of(client, PutPiece(A, 1, digests), DATA) is Status.DIGEST_MISMATCH
        assert client.ask(PutPiece(A, 1, digests, replace=True), DATA) == Done()
        assert client.call(GetPiece(A, 1))[1] == DATA

    def test_a_replacement_that_fails_leaves_what_was_there(self, house: House) -> None:
        client = house.client()
        client.put_piece(A, 1, DATA)
        replacement = PutPiece(A, 1, block_digests(b"good"), replace=True)
        assert status_of(client, replacement, b"baad") is Status.DIGEST_MISMATCH
        assert client.call(GetPiece(A, 1))[1] == DATA

    @pytest.mark.parametrize(
        "request_",
        [
            ListPieces((b"../..", 1), 10),
            ListPieces((A, 9), 10),
            DropPieces(((A[:15], 1),), 0),
            DropPieces(((A, 0),), 0),
            DropPieces(((A, 1),), -1),
            DropPieces(((A, 1),) * 10_001, 0),
            GetPieces(((A[:15], 1),)),
            GetPieces(((A, 5),)),
            GetPieces(((A, 1),) * 257),
            PutPieces(((A[:15], 1, b"x"),)),
            PutPieces(((A, 77, b"x"),)),
            PutPieces(((A, 1, bytes(32 * 1024 + 1)),)),
            PutPieces(tuple((bytes([number]) * 16, 1, bytes(32 * 1024)) for number in range(33))),
            PutPieces(((A, 1, b"x"), (A, 1, b"x"))),
            PutPieces(tuple((number.to_bytes(16, "big"), 1, b"") for number in range(10_001))),
        ],
        ids=lambda request: type(request).__name__,
    )
    def test_what_is_no_proper_request(self, house: House, request_: Message) -> None:
        client = house.client()
        assert status_of(client, request_) is Status.BAD_REQUEST
        assert client.is_closed_by_server()
        assert listed(house.client()).pieces == ()


class TestReserve:
    """A server with a disk as full as the test wants it."""

    @pytest.fixture
    def namespace(self, tmp_path: Path) -> Namespace:
        self.free_bytes = 1000
        self.store = NamespaceStore(tmp_path, "DFS1", grace_s=0.0)
        return Namespace(tmp_path, "DFS1", self.store, 300, lambda folder: (self.free_bytes, 5000))

    def test_what_puts_is_refused_and_what_deletes_is_not(self, namespace: Namespace) -> None:
        small = PutPieces(((A, 1, bytes(600)),))
        assert namespace.answer(small) == Done()
        self.free_bytes = 899
        for attempt in (lambda: namespace.answer(small), lambda: namespace.put_piece(PutPiece(B, 1, bytes(32)), 600)):
            with pytest.raises(Exception, match="899 bytes free, of which it keeps 300") as caught:
                attempt()
            assert getattr(caught.value, "status", None) is Status.NO_SPACE
        self.free_bytes = 0
        assert namespace.answer(DropPieces(((A, 1),), 0)) == Have(b"\1")
        namespace.answer(Promise(BALLOT))
        encoded = batches.encode(Batch(batches.FORMAT, b"", b"client01", 1, 0, deletes=(b"k",), drops=(B,)))
        assert namespace.answer(Accept(BALLOT, 1, encoded)) == AcceptedAt(1, full=True)
        assert namespace.delete_dropped() == 1
        self.free_bytes = 900
        assert namespace.answer(small) == Done()
        namespace.close()

    def test_a_writer_is_told_that_only_the_reserve_is_left(self, namespace: Namespace) -> None:
        namespace.answer(Promise(BALLOT))
        previous = b""
        for slot, (free_bytes, full) in enumerate([(301, False), (300, True), (0, True), (301, False)], start=1):
            self.free_bytes = free_bytes
            encoded = batches.encode(Batch(batches.FORMAT, previous, b"client01", slot, 0, puts=((b"k", b"v"),)))
            assert namespace.answer(Accept(BALLOT, slot, encoded)) == AcceptedAt(slot, full=full)
            status = namespace.answer(GetStatus())
            assert isinstance(status, ServerStatus)
            assert (status.free_bytes == 0) is full
            previous = batches.digest(encoded)
        namespace.close()


def test_a_full_server_can_be_emptied_and_works_again_without_a_restart(
    start_house: StartHouse, small_disk: Path
) -> None:
    house = start_house(
        root=small_disk / "DFS1", reserve_bytes=3 * 1024 * 1024, grace_period_s=0.0, sweep_interval_s=0.01
    )
    client = house.client()
    stored: list[bytes] = []
    with pytest.raises(ServerError, match="NO_SPACE"):
        for number in range(20):
            client.put_piece(bytes([number]) * 16, 1, bytes(512 * 1024))
            stored.append(bytes([number]) * 16)
    assert stored
    (small_disk / "filler").write_bytes(bytes(2 * 1024 * 1024))  # something else uses the reserve too
    assert status_of(client, PutPieces(((A, 2, bytes(32 * 1024)),))) is Status.NO_SPACE
    client.ask(Promise(BALLOT))
    encoded = batches.encode(Batch(batches.FORMAT, b"", b"client01", 1, 0, deletes=(b"k",), drops=tuple(stored[:-1])))
    assert client.ask(Accept(BALLOT, 1, encoded)) == AcceptedAt(1, full=True)
    client.ask(Chosen(1, batches.digest(encoded)))
    assert client.ask(DropPieces(((stored[-1], 1),), 0)) == Have(b"\1")
    eventually(lambda: house.files() == set())
    (small_disk / "filler").unlink()
    client.put_piece(A, 1, bytes(512 * 1024))
    assert client.call(GetPiece(A, 1))[1] == bytes(512 * 1024)


class TestFindings:
    def test_before_the_first_pass(self, house: House) -> None:
        assert house.client().ask(GetFindings()) == Findings((), 0, 0, 0, 0, 0, 0, "")

    def test_a_scrub_finds_what_has_rotted(self, start_house: StartHouse) -> None:
        house = start_house(scrub_interval_s=0.01, scrub_days=1e-9)
        client = house.client()
        client.put_piece(A, 1, DATA)
        client.put_piece(B, 1, DATA)
        (path,) = house.root.glob(f"alice/pieces/01/{A.hex()}.1")
        rotten = bytearray(path.read_bytes())
        rotten[-5] ^= 4
        path.write_bytes(rotten)

        def findings() -> Findings:
            found = client.ask(GetFindings())
            assert isinstance(found, Findings)
            return found

        eventually(lambda: findings().quarantined_count == 1)
        assert findings().quarantined[0][:2] == (A, 1)
        eventually(lambda: findings().passed_s)
        assert findings().database == ""
        status = client.ask(GetStatus())
        assert isinstance(status, ServerStatus)
        assert (status.quarantined, status.scrubbed_s > 0, status.piece_count) == (1, True, 1)
        assert client.ask(HavePieces(((A, 1), (B, 1)))) == Have(b"\0\1")
        assert client.put_piece(A, 1, DATA) == Done()

    def test_a_scrub_finds_a_row_of_the_map_that_is_gone(self, start_house: StartHouse) -> None:
        house = start_house(scrub_interval_s=0.01, scrub_days=1e-9)
        client = house.client()
        client.ask(Promise(BALLOT))
        encoded = batches.encode(Batch(batches.FORMAT, b"", b"client01", 1, 0, ((b"a", b"1"), (b"b", b"2"))))
        client.ask(Accept(BALLOT, 1, encoded))
        client.ask(Chosen(1, batches.digest(encoded)))
        client.ask(ListPieces())  # now it is in the tables
        with contextlib.closing(sqlite3.connect(house.root / "alice" / "namespace.db", timeout=20)) as database:
            database.execute("DELETE FROM map WHERE key = x'61'")
            database.commit()

        def damage() -> str:
            status = client.ask(GetStatus())
            assert isinstance(status, ServerStatus)
            return status.damage

        eventually(damage)
        assert damage() == "rows of the map are missing or unexpected"
        assert status_of(client, ReadKeys(1, batches.digest(encoded), (b"b",))) is Status.DAMAGED

    def test_it_looks_after_users_that_are_not_connected(self, start_house: StartHouse, tmp_path: Path) -> None:
        first = start_house(scrub_days=0.0)
        first.client().put_piece(A, 1, DATA)
        first.close()
        (path,) = (tmp_path / "DFS1").glob(f"alice/pieces/01/{A.hex()}.1")
        path.write_bytes(path.read_bytes()[:-1])
        start_house(root=tmp_path / "DFS1", scrub_interval_s=0.01)
        eventually(lambda: not path.exists())
        assert not (tmp_path / "DFS1" / "bob").exists()

    def test_with_scrub_days_0_it_is_off(self, start_house: StartHouse) -> None:
        house = start_house(scrub_days=0.0)
        assert "scrub" not in [thread.name for thread in house.daemon._threads]
