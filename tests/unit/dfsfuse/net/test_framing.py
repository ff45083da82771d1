"""Frames out and in, cut anywhere."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfs_server.protocol.frames import AFTER_AUTHENTICATION, HEADER_BYTES, Header, Limits, ProtocolError, pack_header
from dfsfuse.net.framing import SCRATCH_BYTES, FrameReader, FrameWriter

LIMITS = Limits(200_000, 200_000)
LENGTHS = st.one_of(
    st.integers(0, 50),
    st.sampled_from(
        [SCRATCH_BYTES + delta for delta in (-HEADER_BYTES - 1, -HEADER_BYTES, -HEADER_BYTES + 1, -1, 0, 1)]
    ),
    st.integers(0, 40_000),
)


def pattern(seed: int, length: int) -> bytes:
    return bytes((seed * 7 + i) % 251 for i in range(256)) * (length // 256) + bytes(
        seed % 251 for _ in range(length % 256)
    )


def feed(
    reader: FrameReader, data: bytes, cuts: Iterable[int], sinks: dict[int, memoryview]
) -> list[tuple[Header, bytes]]:
    """Feed `data` to the reader, in parts of at most the sizes in `cuts`, and return the frames that come out."""

    def expect(header: Header) -> memoryview | None:
        return sinks.get(header.request_id)

    frames = []
    cut = iter(cuts)
    at = 0
    while at < len(data):
        parts = reader.parts() if reader.foreseen else [reader.buffer()]
        assert len(parts[0]) > 0
        count = min(sum(map(len, parts)), len(data) - at, next(cut, 1 << 20))
        left = memoryview(data)[at : at + count]
        for part in parts:
            here = min(len(part), len(left))
            part[:here], left = left[:here], left[here:]
        at += count
        reader.received(count)
        while (body := reader.frame(expect)) is not None:
            frames.append((reader.header, bytes(body)))
    return frames


@given(
    st.lists(st.tuples(LENGTHS, LENGTHS), max_size=6),
    st.lists(st.integers(1, 9_000), max_size=60),
)
def test_frames_come_out_as_they_went_in_however_they_are_cut(shapes: list[tuple[int, int]], cuts: list[int]) -> None:
    wire = bytearray()
    expected, sinks, kept = [], {}, {}
    for id, (body_bytes, payload_bytes) in enumerate(shapes, start=1):
        body, payload = pattern(id, body_bytes), pattern(id + 100, payload_bytes)
        wire += pack_header(id, body_bytes, payload_bytes) + body + payload
        expected.append((Header(id, body_bytes, payload_bytes), body))
        kept[id] = bytearray(payload_bytes + 3)
        sinks[id] = memoryview(kept[id])
    reader = FrameReader(LIMITS)
    assert feed(reader, bytes(wire), cuts, sinks) == expected
    assert reader.at_rest
    for id, (_, payload_bytes) in enumerate(shapes, start=1):
        assert kept[id] == pattern(id + 100, payload_bytes) + b"\0\0\0"


@given(
    st.tuples(LENGTHS, LENGTHS),
    st.tuples(LENGTHS, LENGTHS),
    st.integers(HEADER_BYTES, SCRATCH_BYTES),
    st.lists(st.integers(1, 9_000), max_size=60),
)
def test_a_frame_that_was_foreseen_comes_out_as_it_went_in_whatever_it_is(
    foreseen: tuple[int, int], then: tuple[int, int], head_bytes: int, cuts: list[int]
) -> None:
    """Even if it differs from what was foreseen, unless it is refused with ProtocolError."""
    shapes = [foreseen, then]
    wire, expected = bytearray(), []
    for id, (body_bytes, payload_bytes) in enumerate(shapes, start=1):
        wire += pack_header(id, body_bytes, payload_bytes) + pattern(id, body_bytes) + pattern(id + 100, payload_bytes)
        expected.append((Header(id, body_bytes, payload_bytes), pattern(id, body_bytes)))
    sinks = {id: memoryview(bytearray(payload_bytes)) for id, (_, payload_bytes) in enumerate(shapes, start=1)}
    reader = FrameReader(LIMITS)
    reader.foresee(head_bytes, sinks[1])
    try:
        assert feed(reader, bytes(wire), cuts, sinks) == expected
    except ProtocolError:
        assert foreseen[0] + HEADER_BYTES != head_bytes, "only a frame that differs may be refused"
        return
    assert reader.at_rest
    for id, sink in sinks.items():
        assert sink == pattern(id + 100, len(sink))


def test_a_frame_that_was_foreseen_comes_with_one_read() -> None:
    wire = pack_header(1, 500, 65_536) + pattern(1, 500) + pattern(2, 65_536)
    sink = memoryview(bytearray(65_536))
    reader = FrameReader(LIMITS)
    reader.foresee(HEADER_BYTES + 500, sink)
    head, payload = reader.parts()
    assert payload is sink
    head[:], payload[:] = wire[: len(head)], wire[len(head) :]
    reader.received(len(wire))
    assert reader.frame(lambda _: sink) == pattern(1, 500)
    assert reader.at_rest
    assert not reader.foreseen
    assert sink == pattern(2, 65_536)


@pytest.mark.parametrize("body_bytes", [10, 700])
def test_an_error_in_the_place_of_a_frame_that_was_foreseen(body_bytes: int) -> None:
    """It is shorter or longer than what was foreseen, so part of it may have been read into the sink."""
    reader = FrameReader(LIMITS)
    reader.foresee(HEADER_BYTES + 500, memoryview(bytearray(1000)))
    sinks = {2: memoryview(bytearray(5))}
    wire = pack_header(1, body_bytes, 0) + pattern(1, body_bytes) + pack_header(2, 3, 5) + b"abc" + b"after"
    assert [body for _, body in feed(reader, wire, [], sinks)] == [pattern(1, body_bytes), b"abc"]
    assert sinks[2] == b"after"


def test_a_reader_that_foresaw_a_frame_lets_go_of_the_sink() -> None:
    for got in (0, 5, 100):
        sink = bytearray(10)
        reader = FrameReader(LIMITS)
        reader.foresee(HEADER_BYTES + 3, memoryview(sink))
        wire = pack_header(1, 3, 10) + b"abc" + b"0123456789"
        feed(reader, wire[:got], [], {1: memoryview(sink)})
        if got < len(wire):
            reader.drop()
        sink.append(1)  # BufferError while anything refers to it


def test_part_of_a_frame_is_not_at_rest() -> None:
    wire = pack_header(1, 5, 3) + b"hello" + b"abc"
    for cut in range(1, len(wire)):
        reader = FrameReader(LIMITS)
        assert feed(reader, wire[:cut], [], {1: memoryview(bytearray(3))}) == []
        assert not reader.at_rest


def test_payload_goes_into_the_sink_itself_once_its_beginning_is_known() -> None:
    sink = bytearray(100_000)
    reader = FrameReader(LIMITS)
    feed(reader, pack_header(1, 5, 100_000) + b"hello", [], {1: memoryview(sink)})
    buffer = reader.buffer()
    assert len(buffer) == 100_000
    buffer[:3] = b"abc"
    assert sink[:3] == b"abc"


def test_payload_that_does_not_fit_touches_nothing() -> None:
    sink = bytearray(10)
    with pytest.raises(ProtocolError, match="a payload of 11 bytes; there is room for 10"):
        feed(FrameReader(LIMITS), pack_header(1, 0, 11) + b"x" * 11, [], {1: memoryview(sink)})
    assert sink == bytes(10)


def test_payload_that_was_not_requested() -> None:
    with pytest.raises(ProtocolError, match="there is room for 0"):
        feed(FrameReader(LIMITS), pack_header(1, 0, 1), [], {})


@pytest.mark.parametrize(
    "header", [b"HTTP/1.1 400 Bad", pack_header(1, 200_001, 0), pack_header(1, 0, 200_001), bytes(16)]
)
def test_header_that_is_none_or_promises_too_much(header: bytes) -> None:
    with pytest.raises(ProtocolError):
        feed(FrameReader(LIMITS), header, [], {1: memoryview(bytearray(300_000))})


def test_dropped_reader_lets_go_of_the_sink() -> None:
    sink = bytearray(10)
    reader = FrameReader(LIMITS)
    feed(reader, pack_header(1, 0, 10) + b"abc", [], {1: memoryview(sink)})
    reader.drop()
    sink.append(1)  # BufferError while anything refers to it


@given(
    st.lists(st.tuples(LENGTHS, st.lists(LENGTHS, max_size=3)), max_size=4),
    st.lists(st.integers(0, 30_000), max_size=60),
)
def test_what_is_sent_is_what_was_added(shapes: list[tuple[int, list[int]]], cuts: list[int]) -> None:
    writer = FrameWriter()
    expected = bytearray()
    for id, (body_bytes, parts) in enumerate(shapes, start=1):
        body, payload = pattern(id, body_bytes), tuple(pattern(id + n, length) for n, length in enumerate(parts))
        writer.add(id, body, payload)
        expected += pack_header(id, body_bytes, sum(parts)) + body + b"".join(payload)
    sent = bytearray()
    cut = iter(cuts)
    while writer.views:
        whole = b"".join(writer.views)
        count = min(next(cut, len(whole)), len(whole))
        sent += whole[:count]
        writer.sent(count)
    assert sent == expected


def test_payload_is_not_copied() -> None:
    payload = bytearray(b"abc" * 1000)
    writer = FrameWriter()
    writer.add(1, b"body", (memoryview(payload),))
    payload[:3] = b"xyz"
    assert b"".join(writer.views).endswith(bytes(payload))
    writer.clear()
    payload.append(1)  # BufferError while anything refers to it


def test_limits_of_the_protocol_are_enough_for_a_whole_piece() -> None:
    sink = bytearray(AFTER_AUTHENTICATION.payload_bytes)
    frames = feed(
        FrameReader(AFTER_AUTHENTICATION), pack_header(1, 0, len(sink)) + b"p" * len(sink), [], {1: memoryview(sink)}
    )
    assert len(frames) == 1
    assert sink == b"p" * len(sink)
