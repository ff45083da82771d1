"""Fetching parts of one segment's pieces. `DownloadPlan` decides, purely; `download` does it.

Each part is a run of 64 KiB blocks of one piece, fetched into a buffer of its own and verified there: the level-one
digests that come with it against the digest in the metadata, then its blocks against those. What does not match is
never handed out; the server that sent it is named in the log and another one is asked.

For each piece its homes are asked in the order of `choose_sources`, so that four pieces come from four servers. A
home that fails or lags gets the next one a request too. Last come servers that are no homes as far as the
metadata knows: healing may have moved the piece since that was read.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Final

from dfs_server.protocol.messages import GetPiece, Piece
from dfs_server.protocol.pieces import PIECE_NUMBERS, blocks_match, piece_digest
from dfs_server.protocol.status import Status
from dfsfuse.cluster.exchange import Answer, Call, Failure
from dfsfuse.data.block_cache import Run
from dfsfuse.data.extents import Segment
from dfsfuse.data.pace import Pace, Suspects
from dfsfuse.data.placement import choose_sources
from dfsfuse.data.race import Attempt, Race
from dfsfuse.data.striping import piece_lengths, run_bytes
from dfsfuse.data.transport import ClusterLike, run
from dfsfuse.errors import IncompleteError

HEDGE_S: Final = 0.3
HARD_STALL_S: Final = 4.0
DEADLINE_S: Final = 30.0
"""However slowly bytes trickle, a download of at most 4 MiB ends by then."""

OnBadPiece = Callable[[Segment, int, int], None]
"""Told of a home that does not have a piece, or not as it was: segment, number of the piece, server. In the reader's
thread, so it must not wait for anything."""

Wanted = Mapping[int, range]
"""Piece number -> its blocks to fetch, a non-empty run."""

_NOT_THERE: Final = (Status.NOT_FOUND, Status.IO_ERROR)

_log = logging.getLogger(__name__)


class DownloadPlan:
    """Whom to ask for which piece next, and when to give up. Pure."""

    def __init__(
        self,
        segment: Segment,
        wanted: Wanted,
        all_servers: frozenset[int],
        usable: frozenset[int],
        patience_s: float,
    ) -> None:
        self._segment = segment
        self._said: dict[int, list[str]] = {number: [] for number in wanted}
        self._silent: set[int] = set()
        sources = choose_sources(segment.homes, usable)
        strangers = sorted(all_servers, key=lambda server: (server not in usable, server))
        order = {number: tuple(dict.fromkeys((*sources[number], *strangers))) for number in wanted}
        self.race = Race(order, need=1, patience_s=patience_s)

    def failed(self, attempt: Attempt, text: str, *, silent: bool) -> None:
        """The server did not send good bytes. `silent`: it did not answer at all."""
        self.race.lost(attempt, out=silent)
        if silent:
            self._silent.add(attempt.server)
        self._said[attempt.number].append(text)

    def error(self) -> IncompleteError | None:
        """Which piece cannot be had, and what each server said; None while there is hope."""
        number = self.race.hopeless()
        if number is None:
            return None
        said = "; ".join(self._said[number]) or "no server answers"
        away = self._silent & set(self._segment.homes[number - 1])
        return IncompleteError(f"no good copy of P{number} of segment {self._segment.id.hex()}: {said}", away)


class _Download:
    """One download, for `transport.run`. Gathers the verified runs."""

    def __init__(
        self, segment: Segment, wanted: Wanted, plan: DownloadPlan, cluster: ClusterLike, pace: Pace, on_bad: OnBadPiece
    ) -> None:
        self.race = plan.race
        self._cluster = cluster
        self._on_bad = on_bad
        self.runs: dict[int, Run] = {}
        self._segment = segment
        self._wanted = wanted
        self._plan = plan
        self._names = cluster.names
        self._pace = pace
        self._lengths = dict(zip(PIECE_NUMBERS, piece_lengths(segment.length), strict=True))
        self._sinks: dict[Attempt, memoryview] = {}  # one each: two servers may be sending the same piece

    def call(self, attempt: Attempt) -> Call:
        blocks = self._wanted[attempt.number]
        sink = memoryview(bytearray(run_bytes(self._lengths[attempt.number], blocks)))
        self._sinks[attempt] = sink
        request = GetPiece(self._segment.id, attempt.number, blocks.start, len(blocks))
        return Call(server=attempt.server, request=request, sink=sink, stall_s=HARD_STALL_S, is_patient=True)

    def finished(self, attempt: Attempt, result: Answer | Failure, now: float) -> None:
        sink = self._sinks.pop(attempt)
        if isinstance(result, Failure):
            if result.status == Status.DIGEST_MISMATCH:
                self._warn(attempt, result.text)
            elif result.status in _NOT_THERE and attempt.server in self._segment.homes[attempt.number - 1]:
                self._on_bad(self._segment, attempt.number, attempt.server)
            self._plan.failed(attempt, result.text, silent=result.status is None)
            return
        lie = self._lie(attempt.number, result, sink)
        if lie:
            self._warn(attempt, lie)
            self._plan.failed(attempt, f"{self._names[attempt.server]}: {lie}", silent=False)
            return
        self._pace.note(len(sink), self.race.won(attempt, now), attempt.server)
        blocks = self._wanted[attempt.number]
        self.runs[attempt.number] = Run(self._segment.id, attempt.number, blocks.start, sink.toreadonly())

    def expired(self) -> None:
        for attempt in self.race.pending():
            text = f"{self._names[attempt.server]} was not done after {DEADLINE_S:.0f} s"
            self._plan.failed(attempt, text, silent=True)

    def check(self) -> None:
        error = self._plan.error()
        if error is not None:
            raise error

    def _lie(self, number: int, answer: Answer, data: memoryview) -> str:
        """What is wrong with the answer; empty if it is what the metadata promises."""
        reply = answer.reply
        if not isinstance(reply, Piece):
            return f"answered GetPiece with {type(reply).__name__}"
        if reply.length != self._lengths[number] or answer.payload_bytes != len(data):
            return f"sent {answer.payload_bytes} bytes of a piece of {reply.length}, not {len(data)}"
        if piece_digest(reply.digests) != self._segment.digests[number - 1]:
            return "sent digests that are not those of the piece"
        if not blocks_match(data, reply.digests, self._wanted[number].start):
            return "sent bytes that do not have the piece's digests"
        return ""

    def _warn(self, attempt: Attempt, what: str) -> None:
        """It has the piece, and not as it was put there."""
        _log.warning(
            "%s has a bad P%d of segment %s: %s",
            self._names[attempt.server],
            attempt.number,
            self._segment.id.hex(),
            what,
        )
        self._cluster.note_fault(attempt.server, f"a bad P{attempt.number} of segment {self._segment.id.hex()}: {what}")
        self._on_bad(self._segment, attempt.number, attempt.server)


def download(
    segment: Segment,
    wanted: Wanted,
    cluster: ClusterLike,
    suspects: Suspects,
    pace: Pace,
    *,
    on_bad: OnBadPiece = lambda *_: None,
    clock: Callable[[], float] = time.monotonic,
) -> list[Run]:
    """The wanted blocks, verified, in order of pieces. Raises `IncompleteError` if some cannot be had."""
    lengths = piece_lengths(segment.length)
    largest = max(run_bytes(lengths[number - 1], blocks) for number, blocks in wanted.items())
    usable = cluster.usable() - suspects.now(clock())
    plan = DownloadPlan(segment, wanted, frozenset(cluster.names), usable, pace.patience_s(largest))
    job = _Download(segment, wanted, plan, cluster, pace, on_bad)
    run(job, cluster, suspects, deadline_s=DEADLINE_S, clock=clock)
    return [job.runs[number] for number in sorted(wanted)]
