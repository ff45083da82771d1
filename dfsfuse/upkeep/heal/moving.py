"""Makes copies of pieces on other servers: fetched, checked against the metadata's digests, put.

One window at a time, so that memory is bounded: its pieces are fetched in parallel, then put in parallel, small ones in
batches. If a source fails or sends something other than the piece, the next one is tried. Failures are values, reported
per move; nothing unchecked is ever put. Bandwidth is taken from a bucket before each window.

Knows segments and servers; knows no files, no records, and not why a copy is wanted. One thread at a time. Nothing
waits longer than `asking.GLANCE_S` without checking whether to stop.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from dfs_server.protocol.messages import PutPiece, PutPieces, Request
from dfs_server.protocol.piece_messages import MAX_PUT_PIECES_BYTES
from dfs_server.protocol.pieces import block_digests
from dfs_server.protocol.status import Status
from dfsfuse.common.portions import by_bytes
from dfsfuse.data import piece_check
from dfsfuse.data.extents import Segment
from dfsfuse.data.segments import INLINE_SEGMENT_MAX_BYTES
from dfsfuse.data.transport import ClusterLike
from dfsfuse.errors import StoppedError
from dfsfuse.net.exchange import Answer, Call, Failure
from dfsfuse.net.stalls import PIECE_S
from dfsfuse.upkeep import whole_pieces
from dfsfuse.upkeep.asking import results
from dfsfuse.upkeep.heal.bandwidth import Bucket

WINDOW_BYTES: Final = 8 * 1024 * 1024
WINDOW_MOVES: Final = 512
LEAST_COST_BYTES: Final = 16 * 1024
"""The least that a piece takes from the bucket: small ones cost requests rather than bytes."""
UNFIT: Final = (Status.DIGEST_MISMATCH, Status.NOT_FOUND, Status.IO_ERROR)
"""As the answer for a piece, these mean that the server has no good copy of it."""

Place = tuple[bytes, int, int]
"""Segment, piece number, server."""


@dataclass(frozen=True, eq=False)
class Move:
    """A copy to be made. `replace`: what the target has under this name is not the piece."""

    segment: Segment
    number: int
    target: int
    sources: tuple[int, ...]
    replace: bool = False

    @property
    def is_small(self) -> bool:
        """Return whether it is kept with the small pieces."""
        return self.segment.length <= INLINE_SEGMENT_MAX_BYTES

    @property
    def size_bytes(self) -> int:
        """The piece's length."""
        return whole_pieces.length_of(self.segment, self.number)


@dataclass
class Moved:
    """The outcome of some moves."""

    done: list[Move] = field(default_factory=list)
    failed: dict[Move, str] = field(default_factory=dict)
    """And why, in a sentence that names the server; empty if no answering server has the piece."""
    unfit: dict[Place, str] = field(default_factory=dict)
    """Copies that were found to be bad or missing in the process, and what is wrong with them."""


class Mover:
    """See the module. `wait` sleeps for a number of seconds and returns whether to stop."""

    def __init__(
        self,
        cluster: ClusterLike,
        bucket: Bucket,
        wait: Callable[[float], bool],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cluster = cluster
        self._bucket = bucket
        self._wait = wait
        self._clock = clock
        self._out: dict[int, str] = {}
        """Targets that are full or do not answer: nothing more is tried there until `begin`."""

    def begin(self) -> None:
        """Start another round: targets that failed are tried again."""
        self._out.clear()

    def pause(self, cost: int) -> None:
        """Wait until this many bytes may be moved. Raises `StoppedError`."""
        if self._wait(self._bucket.take(cost, self._clock())):
            raise StoppedError

    def move(self, moves: Sequence[Move]) -> Iterator[Moved]:
        """Make these copies; yields the outcome of each window. Raises `StoppedError`, `AuthenticationError`."""
        for window in by_bytes(
            moves, self._bucket.portion_bytes(WINDOW_BYTES), lambda move: move.size_bytes, WINDOW_MOVES
        ):
            cost = sum(max(move.size_bytes, LEAST_COST_BYTES) for move in window)
            self.pause(cost)
            outcome = Moved()
            self._put(self._fetch(window, outcome), outcome)
            yield outcome

    # -------------------------------------------------------------- fetching

    def _fetch(self, window: Sequence[Move], outcome: Moved) -> list[tuple[Move, bytes | memoryview]]:
        found: list[tuple[Move, bytes | memoryview]] = []
        said: dict[Move, list[str]] = {move: [] for move in window}
        with self._cluster.exchange() as exchange:
            calls: dict[Call, tuple[Move, list[int], memoryview]] = {}

            def ask(move: Move, sources: list[int]) -> None:
                if move.target in self._out:
                    outcome.failed[move] = self._out[move.target]
                elif move.size_bytes == 0 and piece_check.is_piece(move.segment, move.number, b""):
                    found.append((move, b""))
                elif not sources:
                    outcome.failed[move] = "; ".join(said[move])
                else:
                    sink = memoryview(bytearray(move.size_bytes))
                    call = Call(sources[0], whole_pieces.request(move.segment, move.number), sink=sink, stall_s=PIECE_S)
                    calls[call] = (move, sources[1:], sink)
                    exchange.start(call)

            for move in window:
                ask(move, list(move.sources))
            for result in results(exchange, self._wait):
                move, others, sink = calls.pop(result.call)
                problem = self._problem(move, result, sink, outcome)
                if problem:
                    said[move].append(problem)
                    ask(move, others)
                else:
                    found.append((move, sink))
        return found

    def _problem(self, move: Move, result: Answer | Failure, sink: memoryview, outcome: Moved) -> str:
        """Return why this is not the piece; empty if it is."""
        server = result.call.server
        place = (move.segment.id, move.number, server)
        if isinstance(result, Failure):
            if result.status in UNFIT:
                outcome.unfit[place] = result.text
            return result.text
        what = piece_check.problem(move.segment, move.number, result.reply, result.payload_bytes, sink)
        if not what:
            return ""
        text = outcome.unfit[place] = f"{self._cluster.names[server]} {what}"
        return text

    # -------------------------------------------------------------- putting

    def _put(self, found: list[tuple[Move, bytes | memoryview]], outcome: Moved) -> None:
        with self._cluster.exchange() as exchange:
            calls: dict[Call, list[Move]] = {}

            def start(target: int, request: Request, moves: list[Move], payload: tuple[memoryview, ...] = ()) -> None:
                call = Call(target, request, payload=payload, stall_s=PIECE_S)
                calls[call] = moves
                exchange.start(call)

            for move, data in found:
                if not move.is_small:
                    digests = block_digests(data)
                    request = PutPiece(move.segment.id, move.number, digests, replace=move.replace)
                    start(move.target, request, [move], (memoryview(data),))
            small = [item for item in found if item[0].is_small]
            for target in sorted({move.target for move, _ in small}):
                theirs = [item for item in small if item[0].target == target]
                for batch in by_bytes(theirs, MAX_PUT_PIECES_BYTES, lambda item: len(item[1])):
                    pieces = tuple((move.segment.id, move.number, bytes(data)) for move, data in batch)
                    start(target, PutPieces(pieces), [move for move, _ in batch])
            for result in results(exchange, self._wait):
                moves = calls.pop(result.call)
                if isinstance(result, Answer):
                    outcome.done += moves
                    continue
                outcome.failed.update(dict.fromkeys(moves, result.text))
                if result.status in (None, Status.NO_SPACE):
                    self._out[result.call.server] = result.text
