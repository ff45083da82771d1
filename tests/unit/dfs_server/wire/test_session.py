"""A real daemon and hostile clients: whatever they send, it answers or hangs up, stores nothing and goes on serving."""

from __future__ import annotations

import contextlib
import struct
from typing import get_args

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.daemons import House, StartHouse
from support.sessions import SEGMENT, refused, still_serves

from dfs_server.protocol import messages
from dfs_server.protocol.frames import MAGIC, pack_header
from dfs_server.protocol.messages import (
    Error,
    GetPosition,
    GetStatus,
    Position,
)
from dfs_server.protocol.status import Status

NAMES = [kind.__name__ for kind in get_args(messages.Request)]


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
        assert stalled.is_closed_by_server()  # stall_s has passed by now
        assert isinstance(idle.ask(GetPosition()), Position)

    def test_a_payload_where_none_belongs(self, house: House) -> None:
        client = house.client()
        client.send(GetStatus(), b"payload")
        assert refused(client) is Status.BAD_REQUEST

    def test_requests_sent_ahead_are_answered_in_order(self, house: House) -> None:
        client = house.client()
        sent = [client.send(GetPosition()) for _ in range(100)]
        assert [client.receive()[0] for _ in sent] == sent


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
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
    assert "unexpected exception" not in caplog.text
