"""Pieces over a connection: put, fetched, refused, and what remains when a client or a disk fails."""

from __future__ import annotations

import os
import random

import pytest
from support.daemons import House, StartHouse, eventually
from support.sessions import DATA, SEGMENT, status_of, still_serves

from dfs_server.protocol import batches, messages
from dfs_server.protocol.ballots import Ballot
from dfs_server.protocol.batches import Batch, InlinePiece
from dfs_server.protocol.frames import pack_header
from dfs_server.protocol.messages import (
    Accept,
    AcceptedAt,
    Chosen,
    CopyItems,
    Done,
    Error,
    GetBatches,
    GetPiece,
    GetStatus,
    Have,
    HavePieces,
    Learn,
    Message,
    Piece,
    Position,
    Promise,
    Promised,
    PutPiece,
    ReadKeys,
    ServerStatus,
)
from dfs_server.protocol.pieces import BLOCK_BYTES, MAX_PIECE_BYTES, block_digests
from dfs_server.protocol.status import Status


class TestPieces:
    def test_put_and_get(self, house: House) -> None:
        client = house.client()
        assert client.put_piece(SEGMENT, 2, DATA) == Done()
        assert client.call(GetPiece(SEGMENT, 2)) == (Piece(len(DATA), block_digests(DATA)), DATA)
        assert house.files() == {f"alice/pieces/3f/{SEGMENT.hex()}.2"}

    @pytest.mark.parametrize(
        ("first", "count", "expected"),
        [
            (0, 1, DATA[:BLOCK_BYTES]),
            (1, 2, DATA[BLOCK_BYTES : 3 * BLOCK_BYTES]),
            (3, 1, DATA[3 * BLOCK_BYTES :]),
            (3, 9, DATA[3 * BLOCK_BYTES :]),
            (2, 0, DATA[2 * BLOCK_BYTES :]),
            (4, 0, b""),
            (10**9, 1, b""),
        ],
    )
    def test_ranges(self, house: House, first: int, count: int, expected: bytes) -> None:
        client = house.client()
        client.put_piece(SEGMENT, 1, DATA)
        assert client.call(GetPiece(SEGMENT, 1, first, count)) == (
            Piece(len(DATA), block_digests(DATA)),
            expected,
        )

    @pytest.mark.parametrize("data", [b"", b"x", bytes(BLOCK_BYTES), random.Random(2).randbytes(MAX_PIECE_BYTES)])
    def test_from_nothing_to_the_largest(self, house: House, data: bytes) -> None:
        client = house.client()
        client.put_piece(SEGMENT, 1, data)
        assert client.call(GetPiece(SEGMENT, 1)) == (Piece(len(data), block_digests(data)), data)

    def test_small_pieces_come_from_the_log(self, house: House) -> None:
        client = house.client()
        ballot = Ballot(1, b"client01")
        small = InlinePiece(SEGMENT, 3, ("DFS1", "DFS2"), b"small" * 100)
        elsewhere = InlinePiece(SEGMENT, 4, ("DFS2", "DFS3"), b"elsewhere")
        batch = Batch(batches.FORMAT, b"", b"client01", 1, 0, puts=((b"k", b"v"),), pieces=(small, elsewhere))
        encoded = batches.encode(batch)
        assert isinstance(client.ask(Promise(ballot)), Promised)
        assert client.ask(Accept(ballot, 1, encoded)) == AcceptedAt(1)
        assert isinstance(client.ask(Chosen(1, batches.digest(encoded))), Position)
        assert client.call(GetPiece(SEGMENT, 3)) == (Piece(500, block_digests(small.data)), small.data)
        assert client.call(GetPiece(SEGMENT, 3, 1, 1)) == (Piece(500, block_digests(small.data)), b"")
        assert status_of(client, GetPiece(SEGMENT, 4)) is Status.NOT_FOUND
        assert client.ask(HavePieces(((SEGMENT, 3), (SEGMENT, 4)))) == Have(b"\1\0")

    def test_have_and_status(self, house: House) -> None:
        client = house.client()
        client.put_piece(SEGMENT, 1, DATA)
        client.put_piece(SEGMENT, 4, b"x")
        asked = tuple((SEGMENT, number) for number in (1, 2, 3, 4))
        assert client.ask(HavePieces(asked)) == Have(b"\1\0\0\1")
        status = client.ask(GetStatus())
        assert isinstance(status, ServerStatus)
        assert (status.server, status.piece_count, status.piece_bytes) == ("DFS1", 2, len(DATA) + 1)
        assert 0 < status.free_bytes < status.total_bytes

    def test_one_user_never_sees_another_s(self, house: House) -> None:
        house.client("alice").put_piece(SEGMENT, 1, DATA)
        bob = house.client("bob")
        assert status_of(bob, GetPiece(SEGMENT, 1)) is Status.NOT_FOUND
        assert bob.ask(HavePieces(((SEGMENT, 1),))) == Have(b"\0")
        bob.put_piece(SEGMENT, 1, b"bob's")
        assert house.client("alice").call(GetPiece(SEGMENT, 1))[1] == DATA

    def test_a_wrong_digest_is_refused_and_the_connection_goes_on(self, house: House) -> None:
        client = house.client()
        data = os.urandom(MAX_PIECE_BYTES)
        for bad_block in (0, 15):
            digests = bytearray(block_digests(data))
            digests[bad_block * 32] ^= 1
            assert status_of(client, PutPiece(SEGMENT, 1, bytes(digests)), data) is Status.DIGEST_MISMATCH
        assert house.files() == set()
        assert client.put_piece(SEGMENT, 1, data) == Done()

    def test_a_piece_is_put_again_but_never_changed(self, house: House) -> None:
        client = house.client()
        assert [client.put_piece(SEGMENT, 1, DATA), client.put_piece(SEGMENT, 1, DATA)] == [Done(), Done()]
        other = DATA[::-1]
        assert status_of(client, PutPiece(SEGMENT, 1, block_digests(other)), other) is Status.DIGEST_MISMATCH
        assert client.call(GetPiece(SEGMENT, 1))[1] == DATA

    @pytest.mark.parametrize(
        "request_",
        [
            PutPiece(b"../../../../../x", 7, block_digests(DATA)),
            PutPiece(b"short", 1, block_digests(DATA)),
            PutPiece(SEGMENT, 0, block_digests(DATA)),
            PutPiece(SEGMENT, 1, b""),
            PutPiece(SEGMENT, 1, block_digests(DATA) + bytes(32)),
            GetPiece(b"", 1),
            GetPiece(SEGMENT, 5),
            GetPiece(SEGMENT, -1),
            GetPiece(SEGMENT, 2**64 - 1),
            GetPiece(SEGMENT, 1, -1, 0),
            GetPiece(SEGMENT, 1, 0, -1),
            HavePieces(((b"..", 1),)),
            HavePieces(((SEGMENT, 9),)),
            HavePieces(((SEGMENT, 1),) * 10_001),
            GetBatches(2**64 - 1),
            ReadKeys(2**63, b"", (b"k",)),
            Accept(Ballot(1, b"client01"), 1, b"no batch"),
        ],
    )
    def test_improper_requests(self, house: House, request_: Message) -> None:
        client = house.client()
        client.send(request_, DATA if isinstance(request_, PutPiece) else b"")
        _, reply, _ = client.receive()
        assert not isinstance(reply, Done | Piece | Have)
        still_serves(house)
        assert house.files() == set()

    @pytest.mark.parametrize(
        "request_",
        [
            ReadKeys(0, b"", (b"k",) * 10_001),
            Learn(1, (b"",) * 10_001),
            CopyItems(b"copy", ((b"k", b""),) * 10_001),
            HavePieces(((SEGMENT, 1),) * 10_001),
        ],
    )
    def test_requests_for_too_much_at_once_are_not_even_read(self, house: House, request_: Message) -> None:
        client = house.client()
        client.send(request_)
        _, reply, _ = client.receive()
        assert isinstance(reply, Error)
        assert "not a request of this protocol" in reply.text
        still_serves(house)

    def test_a_client_that_stops_in_mid_upload_leaves_nothing(self, house: House) -> None:
        client = house.client()
        body = messages.encode(PutPiece(SEGMENT, 1, block_digests(DATA)))
        client.send_raw(pack_header(1, len(body), len(DATA)) + body + DATA[: 2 * BLOCK_BYTES + 5])
        eventually(lambda: any("/tmp/" in name for name in house.files()))
        client.close()
        eventually(lambda: not house.files())
        still_serves(house)

    def test_a_damaged_file_is_told_and_can_be_put_again(self, house: House) -> None:
        client = house.client()
        client.put_piece(SEGMENT, 1, DATA)
        (path,) = house.root.glob(f"alice/pieces/3f/{SEGMENT.hex()}.1")
        path.write_bytes(path.read_bytes()[:1000])
        assert status_of(client, GetPiece(SEGMENT, 1)) is Status.DIGEST_MISMATCH
        assert client.ask(HavePieces(((SEGMENT, 1),))) == Have(b"\0")  # it is in quarantine, which healing can see
        assert status_of(client, GetPiece(SEGMENT, 1)) is Status.NOT_FOUND
        assert client.put_piece(SEGMENT, 1, DATA) == Done()
        assert client.call(GetPiece(SEGMENT, 1))[1] == DATA

    def test_room_that_is_kept_in_reserve(self, start_house: StartHouse) -> None:
        house = start_house(reserve_bytes=2**60)
        client = house.client()
        assert status_of(client, PutPiece(SEGMENT, 1, block_digests(DATA)), DATA) is Status.NO_SPACE
        assert isinstance(client.ask(Promise(Ballot(1, b"client01"))), Promised)
        status = client.ask(GetStatus())
        assert isinstance(status, ServerStatus)
        assert status.free_bytes == 0

    def test_a_disk_that_fails(self, house: House) -> None:
        client = house.client()
        client.put_piece(SEGMENT, 1, DATA)
        folder = house.root / "alice" / "pieces" / "3f"
        folder.rename(folder.with_name("elsewhere"))
        other = bytes([0x3F]) + bytes(15)
        assert status_of(client, PutPiece(other, 1, block_digests(DATA)), DATA) is Status.IO_ERROR
        folder.with_name("elsewhere").rename(folder)
        assert client.put_piece(other, 1, DATA) == Done()
