"""Fetching parts of one segment's pieces. `DownloadPlan` decides, purely; `download` does it.

Each part is a run of 64 KiB blocks of one piece, fetched into a buffer of its own and verified there: the level-one
digests that come with it against the digest in the metadata, then its blocks against those. Whatever does not match is
never handed out; the server that sent it is named in the log and another one is asked.

For each piece its homes are asked in the order of `choose_sources`, so that four pieces come from four servers. If a
home fails or lags, the next one is asked too. Last come servers that are not homes as far as the metadata knows:
healing may have moved the piece since that was read.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Final

from dfs_server.protocol import messages
from dfs_server.protocol.batches import DIGEST_BYTES
from dfs_server.protocol.frames import HEADER_BYTES
from dfs_server.protocol.messages import GetPiece, Piece
from dfs_server.protocol.pieces import PIECE_NUMBERS, block_count
from dfs_server.protocol.status import Status
from dfsfuse.data import piece_check
from dfsfuse.data.block_cache import Run
from dfsfuse.data.extents import Segment
from dfsfuse.data.placement import Homes, choose_sources
from dfsfuse.data.race import Attempt, Race
from dfsfuse.data.striping import piece_lengths, run_bytes
from dfsfuse.data.transport import Begun, ClusterLike, run
from dfsfuse.errors import IncompleteError
from dfsfuse.net.exchange import Answer, Call, Failure
from dfsfuse.net.health.pace import Pace
from dfsfuse.net.stalls import PIECE_S

HEDGE_S: Final = 0.3
DEADLINE_S: Final = 30.0
"""However slowly bytes trickle in, a download of at most 4 MiB ends within this time."""

OnBadPiece = Callable[[Segment, int, int], None]
"""Called for a home that does not have a piece, or not as it was stored: segment, piece number, server. On the reader's
thread, so it must not wait for anything."""

Wanted = Mapping[int, range]
"""Piece number -> its blocks to fetch, a non-empty run."""

_NOT_THERE: Final = (Status.NOT_FOUND, Status.IO_ERROR)

_log = logging.getLogger(__name__)


@lru_cache(maxsize=1024)
def _order(homes: Homes, all_servers: frozenset[int], usable: frozenset[int]) -> dict[int, tuple[int, ...]]:
    """Return, for each piece, all servers in the order to ask them. The result is shared between callers: do not change
    it."""
    strangers = sorted(all_servers, key=lambda server: (server not in usable, server))
    sources = choose_sources(homes, usable)
    return {number: tuple(dict.fromkeys((*sources[number], *strangers))) for number in PIECE_NUMBERS}


@lru_cache(maxsize=1024)
def head_bytes(length: int) -> int:
    """Return the length of the reply's header and body when a part of a piece of this length is requested."""
    return HEADER_BYTES + len(messages.encode(Piece(length, bytes(DIGEST_BYTES * block_count(length)))))


class DownloadPlan:
    """Decides which server to ask for which piece next, and when to give up. Pure."""

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
        everywhere = _order(segment.homes, all_servers, usable)
        order = {number: everywhere[number] for number in wanted}
        self.race = Race(order, need=1, patience_s=patience_s)

    def failed(self, attempt: Attempt, text: str, *, silent: bool) -> None:
        """The server did not send good bytes. `silent`: it did not answer at all."""
        self.race.lost(attempt, out=silent)
        if silent:
            self._silent.add(attempt.server)
        self._said[attempt.number].append(text)

    def error(self) -> IncompleteError | None:
        """Return which piece is unreachable and what each server said; None while there is hope."""
        number = self.race.hopeless()
        if number is None:
            return None
        said = "; ".join(self._said[number]) or "no server answers"
        away = self._silent & set(self._segment.homes[number - 1])
        return IncompleteError(f"no good copy of P{number} of segment {self._segment.id.hex()}: {said}", away)


class _Download:
    """One download: makes the calls, judges the answers, collects the verified runs. With a plan for
    `transport.run`."""

    plan: DownloadPlan

    def __init__(self, segment: Segment, wanted: Wanted, cluster: ClusterLike, pace: Pace, on_bad: OnBadPiece) -> None:
        self._cluster = cluster
        self._on_bad = on_bad
        self.runs: dict[int, Run] = {}
        self._segment = segment
        self._wanted = wanted
        self._names = cluster.names
        self._pace = pace
        self._lengths = piece_lengths(segment.length)
        self._sinks: dict[Attempt, memoryview] = {}  # one each: two servers may be sending the same piece

    def call(self, attempt: Attempt) -> Call:
        blocks = self._wanted[attempt.number]
        length = self._lengths[attempt.number - 1]
        sink = memoryview(bytearray(run_bytes(length, blocks)))
        self._sinks[attempt] = sink
        request = GetPiece(self._segment.id, attempt.number, blocks.start, len(blocks))
        return Call(
            server=attempt.server,
            request=request,
            sink=sink,
            stall_s=PIECE_S,
            is_patient=True,
            head_bytes=head_bytes(length),
        )

    @property
    def race(self) -> Race:
        return self.plan.race

    def finished(self, attempt: Attempt, result: Answer | Failure, now: float) -> None:
        if isinstance(result, Failure):
            del self._sinks[attempt]
            if result.status == Status.DIGEST_MISMATCH:
                self._warn(attempt, result.text)
            elif result.status in _NOT_THERE and attempt.server in self._segment.homes[attempt.number - 1]:
                self._on_bad(self._segment, attempt.number, attempt.server)
            self.plan.failed(attempt, result.text, silent=result.status is None)
        elif wrong := self.judge(attempt, result):
            self.plan.failed(attempt, wrong, silent=False)
        else:
            self.note_pace(attempt, self.race.won(attempt, now))

    def judge(self, attempt: Attempt, answer: Answer) -> str:
        """Take the run if the answer is what the metadata promises, and return "". Otherwise return what is wrong, for
        people."""
        sink = self._sinks.pop(attempt)
        first = self._wanted[attempt.number].start
        lie = piece_check.problem(self._segment, attempt.number, answer.reply, answer.payload_bytes, sink, first)
        if lie:
            self._warn(attempt, lie)
            return f"{self._names[attempt.server]}: {lie}"
        self.runs[attempt.number] = Run(self._segment.id, attempt.number, first, sink.toreadonly())
        return ""

    def note_pace(self, attempt: Attempt, took_s: float) -> None:
        """Record that the server took this long to send good bytes."""
        self._pace.note(len(self.runs[attempt.number].data), took_s, attempt.server)

    def expired(self) -> None:
        for attempt in self.race.pending():
            text = f"{self._names[attempt.server]} was not done after {DEADLINE_S:.0f} s"
            self.plan.failed(attempt, text, silent=True)

    def check(self) -> None:
        error = self.plan.error()
        if error is not None:
            raise error

    def _warn(self, attempt: Attempt, what: str) -> None:
        """Log that the server has the piece, but not as it was stored there."""
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
    pace: Pace,
    *,
    on_bad: OnBadPiece = lambda *_: None,
    clock: Callable[[], float] = time.monotonic,
) -> list[Run]:
    """Return the wanted blocks, verified, in order of pieces. Raises `IncompleteError` if some are unreachable."""
    lengths = piece_lengths(segment.length)
    largest = max([run_bytes(lengths[number - 1], blocks) for number, blocks in wanted.items()])
    patience_s = pace.patience_s(largest)
    spared = cluster.health.data
    usable = cluster.usable() - spared.now()
    job = _Download(segment, wanted, cluster, pace, on_bad)
    first: Attempt | None = None
    wrong = ""
    begun_at = clock()
    if len(wanted) == 1:  # a part of one piece: its first source usually has it, and there is no race
        (number,) = wanted
        first = Attempt(number, choose_sources(segment.homes, usable)[number][0])
        call = job.call(first)
        result = cluster.ask_one(call, patience_s)
        if isinstance(result, Answer):
            spared.answered(first.server)
            if not (wrong := job.judge(first, result)):
                job.note_pace(first, clock() - begun_at)
                return [job.runs[number]]
    job.plan = DownloadPlan(segment, wanted, frozenset(cluster.names), usable, patience_s)
    begun: Begun | None = None
    if first is not None:
        assert job.race.take(begun_at) == first, "it is the one that the race begins with"
        if wrong:
            job.plan.failed(first, wrong, silent=False)
        elif not isinstance(result, Answer):
            begun = Begun(first, call, result)
    run(job, cluster, deadline_s=DEADLINE_S, clock=clock, begun=begun)
    return [job.runs[number] for number in sorted(wanted)]
