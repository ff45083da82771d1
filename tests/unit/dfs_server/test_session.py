"""A real daemon and hostile clients: whatever they send, it answers or hangs up, keeps nothing and goes on serving."""

from __future__ import annotations

import contextlib
import os
import random
import struct
from pathlib import Path
from typing import get_args

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scramp import ScramClient
from support.daemons import House, StartHouse, eventually
from support.raw_client import RawClient, ServerError

from dfs_server.protocol import batches, messages
from dfs_server.protocol.ballots import Ballot
from dfs_server.protocol.batches import Batch, InlinePiece
from dfs_server.protocol.frames import MAGIC, VERSION, pack_header
from dfs_server.protocol.messages import (
    Accept,
    AcceptedAt,
    Authenticate,
    Chosen,
    CopyItems,
    Done,
    Error,
    GetBatches,
    GetPiece,
    GetPosition,
    GetStatus,
    Have,
    HavePieces,
    Learn,
    Message,
    Piece,
    Position,
    Promise,
    Promised,
    Prove,
    PutPiece,
    ReadKeys,
    ServerStatus,
)
from dfs_server.protocol.pieces import BLOCK_BYTES, MAX_PIECE_BYTES, block_digests
from dfs_server.protocol.status import Status

SEGMENT = bytes.fromhex("3f" + "a1" * 15)
DATA = random.Random(1).randbytes(3 * BLOCK_BYTES + 77)
NAMES = [kind.__name__ for kind in get_args(messages.Request)]


def status_of(client: RawClient, request: Message, payload: bytes = b"") -> Status:
    with pytest.raises(ServerError) as caught:
        client.ask(request, payload)
    return caught.value.status


def still_serves(house: House) -> None:
    assert isinstance(house.client().ask(GetPosition()), Position)


def refused(client: RawClient) -> Status:
    """The status of the error that comes next, after which the server hangs up."""
    _, reply, _ = client.receive()
    assert isinstance(reply, Error), reply
    assert client.is_closed_by_server()
    return Status(reply.status)


class TestAuthentication:
    def test_welcome_names_the_server(self, house: House) -> None:
        welcome = house.stranger().authenticate("alice", "alice-secret")
        assert (welcome.server, welcome.identity) == ("DFS1", house.identity)
        assert (house.root / "alice" / "namespace.db").is_file()

    @pytest.mark.parametrize(
        "request_",
        [GetStatus(), GetPosition(), HavePieces(()), GetPiece(SEGMENT, 1), Promise(Ballot(1, b"x" * 8))],
    )
    def test_nothing_else_is_answered_before(self, house: House, request_: Message) -> None:
        client = house.stranger()
        client.send(request_)
        assert refused(client) is Status.UNAUTHENTICATED
        assert not (house.root / "alice").exists()

    def test_a_proof_out_of_the_blue(self, house: House) -> None:
        client = house.stranger()
        client.send(Prove("c=biws,r=x,p=AAAA"))
        assert refused(client) is Status.UNAUTHENTICATED

    @pytest.mark.parametrize("user", ["alice", "mallory"])
    def test_a_wrong_password_and_an_unknown_user(self, house: House, user: str) -> None:
        client = house.stranger()
        with pytest.raises(ServerError, match=f"server DFS1 refused user '{user}'") as caught:
            client.authenticate(user, "wrong")
        assert caught.value.status is Status.AUTHENTICATION_FAILED
        assert client.is_closed_by_server()
        assert not (house.root / user).exists()

    @pytest.mark.parametrize("user", ["..", "../bob", "/tmp/x", ".", "a\0b", "server.json", "a" * 3000])
    def test_names_that_lead_elsewhere(self, house: House, user: str) -> None:
        before = sorted(house.root.parent.rglob("*"))
        client = house.stranger()
        client.send(Authenticate(VERSION, user, "n,,n=alice,r=abcdef"))
        assert refused(client) is Status.AUTHENTICATION_FAILED
        assert sorted(house.root.parent.rglob("*")) == before

    def test_a_payload_or_a_large_body_is_not_for_strangers(self, house: House) -> None:
        for header in (pack_header(1, 10, 1), pack_header(1, 5000, 0)):
            client = house.stranger()
            client.send_raw(header)
            assert refused(client) is Status.BAD_REQUEST

    def test_who_does_not_authenticate_in_time_is_hung_up_on(self, start_house: StartHouse) -> None:
        house = start_house(authentication_s=0.05)
        silent, slow = house.stranger(), house.stranger()
        slow.send_raw(MAGIC)
        assert silent.is_closed_by_server()
        assert slow.is_closed_by_server()

    def test_authenticating_twice_on_a_connection(self, house: House) -> None:
        client = house.client()
        client.send(Authenticate(VERSION, "bob", "n,,n=bob,r=abcdef"))
        assert refused(client) is Status.BAD_REQUEST

    def test_another_version(self, house: House) -> None:
        client = house.stranger()
        client.send(Authenticate(77, "alice", ScramClient(["SCRAM-SHA-256"], "alice", "x").get_client_first()))
        assert refused(client) is Status.UNSUPPORTED_VERSION


class TestFrames:
    @pytest.mark.parametrize(
        "bytes_",
        [
            b"GET / HTTP/1.1\r\nHost: dfs\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(20),
            MAGIC + b"\x02" + bytes(13),
            MAGIC + b"\x01\x01" + bytes(12),
            struct.pack(">2sBBIII", MAGIC, 1, 0, 1, 0xFFFFFFFF, 0),
            struct.pack(">2sBBIII", MAGIC, 1, 0, 1, 0, 0xFFFFFFFF),
            pack_header(1, 0, 0),
            pack_header(1, 4, 0) + b"\xff\xff\xff\xff",
            pack_header(1, 1, 0) + b"\xc1",
        ],
    )
    @pytest.mark.parametrize("authenticated", [False, True])
    def test_what_is_no_frame_or_no_message(self, house: House, bytes_: bytes, authenticated: bool) -> None:
        client = house.client() if authenticated else house.stranger()
        client.send_raw(bytes_)
        assert refused(client) is Status.BAD_REQUEST
        still_serves(house)

    @pytest.mark.parametrize(
        "body",
        [
            msgspec.msgpack.encode(["Format"]),
            msgspec.msgpack.encode(["Error", 1, "I am a server too"]),
            msgspec.msgpack.encode(["GetPiece"]),
            msgspec.msgpack.encode(["GetPiece", "text", 1]),
            msgspec.msgpack.encode(["GetPiece", SEGMENT, "1"]),
            msgspec.msgpack.encode({"type": "GetStatus"}),
            msgspec.msgpack.encode(["GetStatus"]) + b"trailing",
            b"\x91" * 1_000_000,
            b"\xdd\xff\xff\xff\xff",
            b"\xc6\xff\xff\xff\xff",
            b"\xd9\x03\xff\xfe\xfd",
        ],
    )
    def test_unknown_and_broken_messages(self, house: House, body: bytes) -> None:
        client = house.client()
        client.send_raw(pack_header(9, len(body), 0) + body)
        request_id, reply, _ = client.receive()
        assert (request_id, isinstance(reply, Error) and reply.status) == (9, Status.BAD_REQUEST)
        assert client.is_closed_by_server()
        still_serves(house)

    def test_truncated_frames(self, house: House) -> None:
        body = messages.encode(GetStatus())
        frame = pack_header(1, len(body), 0) + body
        for length in range(1, len(frame)):
            client = house.client()
            client.send_raw(frame[:length])
            client.close()
        still_serves(house)

    def test_a_frame_that_never_ends(self, start_house: StartHouse) -> None:
        house = start_house(stall_s=0.05)
        for beginning in (MAGIC, pack_header(1, 4_000_000, 0) + bytes(100), pack_header(1, 100, 0)):
            client = house.client()
            client.send_raw(beginning)
            assert client.is_closed_by_server()
        still_serves(house)

    def test_an_idle_connection_may_stay(self, start_house: StartHouse) -> None:
        house = start_house(stall_s=0.05, authentication_s=5.0)
        idle = house.client()
        stalled = house.client()
        stalled.send_raw(MAGIC)
        assert stalled.is_closed_by_server()  # at least stall_s has passed by now
        assert isinstance(idle.ask(GetPosition()), Position)

    def test_a_payload_where_none_belongs(self, house: House) -> None:
        client = house.client()
        client.send(GetStatus(), b"payload")
        assert refused(client) is Status.BAD_REQUEST

    def test_requests_sent_ahead_are_answered_in_order(self, house: House) -> None:
        client = house.client()
        sent = [client.send(GetPosition()) for _ in range(100)]
        assert [client.receive()[0] for _ in sent] == sent


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    body=st.one_of(
        st.binary(max_size=200),
        st.lists(
            st.recursive(
                st.none()
                | st.booleans()
                | st.integers(-(2**63), 2**64 - 1)
                | st.binary(max_size=20)
                | st.text(max_size=5)
                | st.sampled_from([SEGMENT, "GetPiece", "Accept", "Learn", "ReadRange", "Promise"]),
                lambda inner: st.lists(inner, max_size=3),
                max_leaves=6,
            ),
            max_size=5,
        ).flatmap(lambda rest: st.sampled_from(NAMES).map(lambda name: msgspec.msgpack.encode([name, *rest]))),
    )
)
def test_any_body_has_an_answer(house: House, caplog: pytest.LogCaptureFixture, body: bytes) -> None:
    with contextlib.closing(house.client()) as client:
        client.send_raw(pack_header(5, len(body), 0) + body)
        assert client.receive()[0] == 5
    assert "mistake" not in caplog.text


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
        assert client.ask(HavePieces(((SEGMENT, 1),))) == Have(b"\0")  # in quarantine: who heals sees it
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


def test_a_namespace_that_cannot_be_opened_is_told(house: House) -> None:
    (house.root / "alice").write_text("a file in the way")
    client = house.stranger()
    with pytest.raises(ServerError) as caught:
        client.authenticate("alice", "alice-secret")
    assert caught.value.status is Status.IO_ERROR
    assert client.is_closed_by_server()
    assert isinstance(house.client("bob").ask(GetPosition()), Position)


def test_a_folder_of_another_version_is_told(house: House, tmp_path: Path) -> None:
    (house.root / "alice").mkdir()
    (house.root / "alice" / "namespace.db").write_bytes(b"this is no SQLite file, but long enough" * 100)
    with pytest.raises(ServerError) as caught:
        house.stranger().authenticate("alice", "alice-secret")
    assert caught.value.status is Status.IO_ERROR
