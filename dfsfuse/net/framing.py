"""Outgoing and incoming frames: which bytes to send next, and where the next received bytes belong. Sans-IO.

Nothing large is copied: a payload is sent from the caller's own buffers, and received straight into the buffer that was
set aside for it. Small replies are read together with their header into a scratch buffer, which is why the first bytes
of a payload may be copied once; unless the length of header and body is known beforehand (`foresee`), so that a whole
reply comes with one system call.

Invariant: bytes get into a caller's buffer only by `FrameReader.received`, or by the socket that was handed
`FrameReader.buffer()` or `parts()`; after the frame is returned, or after `drop`, neither can happen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from dfs_server.protocol.frames import HEADER_BYTES, Header, Limits, ProtocolError, pack_header, parse_header
from dfs_server.protocol.pieces import Buffer

SCRATCH_BYTES: Final = 8 * 1024
_JOINED_BYTES: Final = 16 * 1024

Expect = Callable[[Header], memoryview | None]
"""Called with each header; returns where the payload goes (None if it has none). Raises ProtocolError if it is
unwelcome."""


class FrameWriter:
    """What is still to be sent, as views for `sendmsg`."""

    __slots__ = ("views",)

    def __init__(self) -> None:
        self.views: list[Buffer] = []
        """Always the same list."""

    def add(self, request_id: int, body: bytes, payload: Sequence[Buffer] = ()) -> None:
        """Append a frame. The payload's buffers are only referred to, so they must not change until sent."""
        length = sum(memoryview(part).nbytes for part in payload) if payload else 0
        header = pack_header(request_id, len(body), length)
        if len(body) <= _JOINED_BYTES:
            self.views.append(header + body)
        else:
            self.views += (header, body)
        if length:
            self.views.extend(memoryview(part).cast("B") for part in payload if len(part))

    def sent(self, count: int) -> None:
        """Record that the socket took `count` bytes."""
        views = self.views
        done = 0
        for view in views:
            if count < len(view):
                break
            count -= len(view)
            done += 1
        del views[:done]
        if count:
            views[0] = memoryview(views[0])[count:]

    def clear(self) -> None:
        """Send nothing more, and release all buffers."""
        self.views.clear()


_HEADER, _BODY, _PAYLOAD = range(3)


class FrameReader:
    """Turns bytes into frames: receive into `buffer()`, call `received(count)`, then take each `frame()` until None."""

    __slots__ = (
        "_body",
        "_early",
        "_end",
        "_filled",
        "_foreseen_sink",
        "_long",
        "_scratch",
        "_sink",
        "_stage",
        "_start",
        "foreseen",
        "header",
        "limits",
    )

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.header = Header(0, 0, 0)  # of the frame in progress, or of the one returned last
        self._scratch = memoryview(bytearray(SCRATCH_BYTES))
        self._start = 0  # received and not yet used bytes are _scratch[_start:_end]
        self._end = 0
        self._stage = _HEADER
        self._body: memoryview = self._scratch[:0]
        self._long = False  # whether the body does not fit the scratch buffer and has one of its own
        self._sink: memoryview | None = None  # where the payload of this frame goes
        self._filled = 0  # bytes of the long body, or of the payload
        self.foreseen = 0  # the expected length of the next frame's header and body; 0: unknown
        self._foreseen_sink: memoryview = self._scratch[:0]
        self._early = 0  # bytes that were put into `_foreseen_sink` before the header was read

    @property
    def at_rest(self) -> bool:
        """Return whether everything that was received has been returned as frames."""
        return self._stage == _HEADER and self._start == self._end

    def foresee(self, head_bytes: int, sink: memoryview) -> None:
        """Announce that, if the next frame is as it should be, its header and body have this many bytes together, and
        `expect` will say that its payload belongs in `sink`. Call only when everything is `at_rest`."""
        if HEADER_BYTES <= head_bytes <= SCRATCH_BYTES:
            self.foreseen, self._foreseen_sink = head_bytes, sink

    def parts(self) -> list[memoryview]:
        """Return where all of a frame that was `foreseen` is to be put, one buffer after the other. The body returned
        last is overwritten."""
        self._start = self._end = 0
        return [self._scratch[: self.foreseen], self._foreseen_sink]

    def buffer(self) -> memoryview:
        """Return where the next bytes are to be put; never empty. The body returned last is overwritten by them."""
        if self._stage == _HEADER and self._start == self._end:
            self._start = self._end = 0
            return self._scratch
        if self._stage == _PAYLOAD and self._sink is not None:
            return self._sink[self._filled :]
        if self._stage == _BODY and self._long:
            return self._body[self._filled :]
        self._make_room(self.header.body_bytes if self._stage == _BODY else HEADER_BYTES)
        return self._scratch[self._end :]

    def received(self, count: int) -> None:
        """Record that `count` bytes were put where `parts` or `buffer` said."""
        if self.foreseen:
            self._end = min(count, self.foreseen)
            self._early = count - self._end
            self.foreseen = 0
            if not self._early:
                self._foreseen_sink = self._scratch[:0]
        elif self._stage == _PAYLOAD or (self._stage == _BODY and self._long):
            self._filled += count
        else:
            self._end += count

    def frame(self, expect: Expect) -> memoryview | None:
        """Return the body of the next complete frame, whose `header` is set; None if more bytes are needed.

        Raises `ProtocolError` for an invalid header or one over the limits, for a payload that is too long for its
        sink, and what `expect` raises.
        """
        if self._stage == _HEADER:
            begin = self._start + HEADER_BYTES
            if begin > self._end:
                return None
            header = parse_header(self._scratch[self._start : begin], self.limits)
            sink = expect(header)
            end = begin + header.body_bytes
            if not header.payload_bytes and end <= self._end and not self._early:  # the usual case: it is all here
                self.header, self._start = header, end
                return self._scratch[begin:end]
            self._begin_body(header, sink)
        if self._stage == _BODY:
            if not self._body_is_complete():
                return None
            self._begin_payload()
        if self._filled < self.header.payload_bytes:
            return None
        self._stage, self._sink = _HEADER, None
        self._foreseen_sink = self._scratch[:0]
        return self._body

    def drop(self) -> None:
        """Release the caller's buffer. The reader is of no further use."""
        self._sink = None
        self.foreseen, self._foreseen_sink = 0, self._scratch[:0]
        self._stage, self._start, self._end = _HEADER, 0, 0

    def _begin_body(self, header: Header, sink: memoryview | None) -> None:
        if header.payload_bytes and (sink is None or len(sink) < header.payload_bytes):
            raise ProtocolError(f"a payload of {header.payload_bytes} bytes; there is room for {len(sink or b'')}")
        self.header, self._stage = header, _BODY
        self._start += HEADER_BYTES
        self._sink = sink[: header.payload_bytes] if sink is not None else None
        self._filled = 0
        self._long = header.body_bytes > SCRATCH_BYTES
        if self._early and not (self._start + header.body_bytes == self._end and self._early <= header.payload_bytes):
            self._sort_out()
        elif self._long:
            self._body = memoryview(bytearray(header.body_bytes))
            self._filled = self._take(self._body)

    def _body_is_complete(self) -> bool:
        if self._long:
            return self._filled == len(self._body)
        end = self._start + self.header.body_bytes
        if end > self._end:
            return False
        self._body = self._scratch[self._start : end]
        self._start = end
        return True

    def _begin_payload(self) -> None:
        self._stage, self._filled = _PAYLOAD, 0
        if self._early:
            self._filled, self._early = self._early, 0
        elif self._sink is not None:
            self._filled = self._take(self._sink)

    def _take(self, target: memoryview) -> int:
        """Move what is available for `target` from the scratch buffer to it."""
        count = min(self._end - self._start, len(target))
        target[:count] = self._scratch[self._start : self._start + count]
        self._start += count
        return count

    def _sort_out(self) -> None:
        """Put what has come where it belongs, since the frame is not as foreseen (an error, or from a newer server)."""
        data = bytes(self._scratch[self._start : self._end]) + bytes(self._foreseen_sink[: self._early])
        body_bytes, payload_bytes = self.header.body_bytes, self.header.payload_bytes
        after = data[body_bytes + payload_bytes :]
        if len(after) > SCRATCH_BYTES:
            raise ProtocolError(f"{len(after)} unexpected bytes after a frame")
        self._long = True
        self._body = memoryview(bytearray(body_bytes))
        self._filled = min(body_bytes, len(data))
        self._body[: self._filled] = data[: self._filled]
        payload = data[body_bytes : body_bytes + payload_bytes]
        self._early = len(payload)
        if self._sink is not None:
            self._sink[: self._early] = payload
        self._scratch[: len(after)] = after
        self._start, self._end = 0, len(after)

    def _make_room(self, wanted: int) -> None:
        """Ensure that `wanted` bytes fit the scratch buffer from `_start` on, and at least one can be received."""
        if self._start == self._end:
            self._start = self._end = 0
        elif self._start + wanted > SCRATCH_BYTES or self._end == SCRATCH_BYTES:
            rest = bytes(self._scratch[self._start : self._end])
            self._scratch[: len(rest)] = rest
            self._start, self._end = 0, len(rest)
