"""Verification from outside: every copy of every piece is fetched from its home and checked against the metadata's
digest.

Nothing is trusted but the map: neither what a server says it has, nor the digests that it keeps beside a piece. What
looks bad counts only if the record still names that copy afterwards: the file may have been written to, or healed,
meanwhile. A server that does not answer is not asked again; what it holds is then not verified, and that is reported.

Memory: `WINDOW_BYTES` of pieces in flight, and one batch of records. Single-threaded; abandoned within a moment when
`wait` says so.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Final, NamedTuple

from dfs_server.protocol.pieces import PIECE_NUMBERS
from dfs_server.protocol.status import Status
from dfsfuse.data import extents, piece_check
from dfsfuse.data.extents import Segment
from dfsfuse.data.transport import ClusterLike
from dfsfuse.namespace.ops.bad_copies import Place
from dfsfuse.net.exchange import Answer, Call, Failure
from dfsfuse.net.stalls import PIECE_S
from dfsfuse.upkeep import whole_pieces
from dfsfuse.upkeep.asking import results
from dfsfuse.upkeep.heal import survey as heal_survey
from dfsfuse.upkeep.map_reader import Pages
from dfsfuse.upkeep.walk import RegionRecord, walk

WINDOW_CALLS: Final = 64
WINDOW_BYTES: Final = 16 * 1024 * 1024
BATCH_SEGMENTS: Final = 500

OnProgress = Callable[[int], None]
"""Called with the number of bytes just verified."""


@dataclass(frozen=True)
class BadCopy:
    """A copy that is not what it should be. `is_missing`: the server says that it does not have it."""

    path: bytes
    """Or "inode 7", if no name of it was seen."""
    segment: bytes
    number: int
    server: int
    is_missing: bool
    text: str
    has_twin: bool
    """Whether another copy of the piece was found to be good: healing restores this one from it."""
    whole: Segment
    """The segment, for healing it."""


@dataclass
class Verified:
    """The outcome."""

    files: int = 0
    segments: int = 0
    copies: int = 0
    """Copies that were found to be good."""
    verified_bytes: int = 0
    bad: list[BadCopy] = field(default_factory=list)
    unreachable: dict[int, str] = field(default_factory=dict)
    """Servers that did not answer, and why."""
    unverified: int = 0
    """The number of copies on those."""
    unreadable: list[bytes] = field(default_factory=list)
    """Files with a record that cannot be read."""
    redeemed: list[Place] = field(default_factory=list)
    """Copies that are noted as bad in the map, but were found to be good."""

    @property
    def to_note(self) -> list[Place]:
        """Return bad copies that their servers believe to be good, so that nothing else knows about them."""
        return [(copy.segment, copy.number, copy.server) for copy in self.bad if not copy.is_missing]

    @property
    def lost(self) -> list[bytes]:
        """Return the files with some piece that has no good copy on any answering server."""
        return sorted({copy.path for copy in self.bad if not copy.has_twin})


class _Copy(NamedTuple):
    key: bytes
    segment: Segment
    number: int
    server: int


class Verifier:
    """See the module. `wait` sleeps for a number of seconds and returns whether to stop."""

    def __init__(
        self,
        cluster: ClusterLike,
        pages: Pages,
        *,
        on_progress: OnProgress = lambda _: None,
        wait: Callable[[float], bool] = lambda _: False,
    ) -> None:
        self._cluster = cluster
        self._pages = pages
        self._on_progress = on_progress
        self._wait = wait
        self._noted: frozenset[Place] = frozenset()

    def verify(self, paths: Mapping[int, bytes], *, everything: bool = False) -> Verified:
        """Verify these files (inode -> a path of it). `everything`: all files, including those of which no name was
        seen: a listing of folders misses a file that is moved meanwhile into a folder that was listed before, and one
        that is open and no longer has a name. Raises `StoppedError`, UnavailableError, AuthenticationError."""
        verified = Verified(files=len(paths))
        self._pages.begin()
        self._noted = heal_survey.noted(self._pages)
        records = chain.from_iterable(walk(self._pages, None if everything else paths))
        wanted = self._copies(records, paths, verified)
        while batch := [copy for copies in islice(wanted, BATCH_SEGMENTS) for copy in copies]:
            good, doubtful = self._fetch(batch, verified)
            verified.bad += self._confirmed(doubtful, good, paths)
        return verified

    @staticmethod
    def _copies(
        records: Iterable[RegionRecord], paths: Mapping[int, bytes], verified: Verified
    ) -> Iterator[list[_Copy]]:
        """Yield the copies of each segment."""
        unnamed = set()
        for record in records:
            if record.ino not in paths and record.ino not in unnamed:
                unnamed.add(record.ino)
                verified.files += 1
            if record.region is None:
                verified.unreadable.append(_path(paths, record.ino))
                continue
            for segment in record.region.segments:
                verified.segments += 1
                yield [
                    _Copy(record.key, segment, number, server)
                    for number, homes in zip(PIECE_NUMBERS, segment.homes, strict=True)
                    if whole_pieces.length_of(segment, number)
                    for server in homes
                ]

    def _fetch(
        self, batch: list[_Copy], verified: Verified
    ) -> tuple[set[tuple[bytes, int]], dict[_Copy, Failure | str]]:
        """Fetch these copies. Returns the pieces of which a good one was seen, and what looks bad."""
        good: set[tuple[bytes, int]] = set()
        doubtful: dict[_Copy, Failure | str] = {}
        flights: dict[Call, tuple[_Copy, memoryview]] = {}
        under_way = 0
        waiting = deque(batch)
        with self._cluster.exchange() as exchange:

            def start_more() -> None:
                nonlocal under_way
                while waiting and len(flights) < WINDOW_CALLS and under_way < WINDOW_BYTES:
                    copy = waiting.popleft()
                    if copy.server in verified.unreachable or copy.server not in self._cluster.names:
                        verified.unverified += 1
                        continue
                    sink = memoryview(bytearray(whole_pieces.length_of(copy.segment, copy.number)))
                    request = whole_pieces.request(copy.segment, copy.number)
                    call = Call(copy.server, request, sink=sink, stall_s=PIECE_S)
                    flights[call] = copy, sink
                    under_way += len(sink)
                    exchange.start(call)

            start_more()
            for result in results(exchange, self._wait):
                copy, sink = flights.pop(result.call)
                under_way -= len(sink)
                self._judge(copy, result, sink, verified, good, doubtful)
                self._on_progress(len(sink))
                start_more()
        return good, doubtful

    def _judge(
        self,
        copy: _Copy,
        result: Answer | Failure,
        sink: memoryview,
        verified: Verified,
        good: set[tuple[bytes, int]],
        doubtful: dict[_Copy, Failure | str],
    ) -> None:
        if isinstance(result, Failure):
            if result.status in (None, Status.BUSY):
                verified.unreachable.setdefault(copy.server, result.text)
                verified.unverified += 1
            else:
                doubtful[copy] = result
            return
        problem = piece_check.problem(copy.segment, copy.number, result.reply, result.payload_bytes, sink)
        if problem:
            doubtful[copy] = f"{self._cluster.names[copy.server]} {problem}"
            return
        good.add((copy.segment.id, copy.number))
        if self._noted:
            place = (copy.segment.id, copy.number, copy.server)
            verified.redeemed += [place] if place in self._noted else []
        verified.copies += 1
        verified.verified_bytes += len(sink)

    def _confirmed(
        self, doubtful: Mapping[_Copy, Failure | str], good: set[tuple[bytes, int]], paths: Mapping[int, bytes]
    ) -> Iterator[BadCopy]:
        """Yield those that the records still name, in the newest state."""
        if not doubtful:
            return
        self._pages.begin()
        keys = sorted({copy.key for copy in doubtful})
        named = {
            (segment.id, number, server)
            for value in self._pages.values(keys)
            for segment in _segments(value)
            for number, homes in zip(PIECE_NUMBERS, segment.homes, strict=True)
            for server in homes
        }
        for copy, what in doubtful.items():
            if (copy.segment.id, copy.number, copy.server) in named:
                ino = RegionRecord(copy.key, None, None).ino
                is_missing = isinstance(what, Failure) and what.status == Status.NOT_FOUND
                name = self._cluster.names[copy.server]
                text = f"{name} does not have it" if is_missing else what.text if isinstance(what, Failure) else what
                has_twin = (copy.segment.id, copy.number) in good
                yield BadCopy(
                    path=_path(paths, ino),
                    segment=copy.segment.id,
                    number=copy.number,
                    server=copy.server,
                    is_missing=is_missing,
                    text=text,
                    has_twin=has_twin,
                    whole=copy.segment,
                )


def _path(paths: Mapping[int, bytes], ino: int) -> bytes:
    return paths.get(ino) or b"inode %d" % ino


def _segments(value: bytes | None) -> tuple[Segment, ...]:
    if value is None:
        return ()
    try:
        return extents.decode(value).segments
    except OSError:
        return ()
