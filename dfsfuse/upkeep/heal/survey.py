"""What is where: all segments of a namespace, or of some files, with what the servers say about their copies.

The first half of healing, which changes nothing; also what `dfc status` counts. Goes through the region records in
batches, and asks all servers per batch what they have. No data is read for this: whether a copy is good is found out
when it is copied.

Knows no file system, no mount and no terminal. One thread at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from dfs_server.protocol.limits import COPIES
from dfs_server.protocol.messages import Have, HavePieces
from dfs_server.protocol.pieces import PIECE_NUMBERS
from dfsfuse.common.portions import by_count
from dfsfuse.data.extents import Segment
from dfsfuse.data.placement import Homes
from dfsfuse.data.transport import ClusterLike
from dfsfuse.errors import StoppedError
from dfsfuse.namespace.ops import bad_copies
from dfsfuse.namespace.ops.bad_copies import Place
from dfsfuse.net.exchange import Answer
from dfsfuse.upkeep.asking import ask
from dfsfuse.upkeep.heal import plan as heal_plan
from dfsfuse.upkeep.heal.report import Report
from dfsfuse.upkeep.map_reader import Pages
from dfsfuse.upkeep.walk import RegionRecord, walk

BATCH_SEGMENTS: Final = 250
"""How many segments are asked for at once. Looking up thousands of pieces keeps the processors of all four servers busy
for a good part of a second, and users of the mount wait for that."""
LOOK_COST_BYTES: Final = 2048
"""The bandwidth charged for looking at a segment: its record, and four servers asked."""


@dataclass(eq=False)
class Subject:
    """A segment, where it belongs, and what is currently known about its copies."""

    key: bytes
    segment: Segment
    desired: Homes
    holders: dict[int, set[int]]
    """Piece number -> servers that answer and have a copy not known to be bad."""
    answering: frozenset[int] = frozenset()

    def transfers(self) -> tuple[heal_plan.Transfer, ...]:
        """Return the copies to be made."""
        return heal_plan.missing(self.segment.homes, self.desired, self.holders, self.answering)

    def settled(self) -> heal_plan.Settled:
        """Return what its record may say now."""
        return heal_plan.settled(self.segment.homes, self.desired, self.holders)

    @property
    def lacks_a_copy(self) -> bool:
        """Return whether some piece has fewer than two reachable copies."""
        return heal_plan.copies(self.holders) < COPIES

    @property
    def is_work(self) -> bool:
        """Return whether there is something that can be done now."""
        homes, drops = self.settled()
        return bool(any(t.sources for t in self.transfers()) or drops or homes != self.segment.homes)


def survey(
    cluster: ClusterLike,
    pages: Pages,
    inos: Iterable[int] | None = None,
    *,
    wait: Callable[[float], bool] = lambda _: False,
    pause: Callable[[int], None] = lambda _: None,
) -> Report:
    """Report what lacks a copy or is not on its proper homes. See `batches`. Raises UnavailableError,
    `StoppedError`."""
    report = Report()
    count(cluster, pages, report, inos, wait=wait, pause=pause)
    return report


def count(
    cluster: ClusterLike,
    pages: Pages,
    report: Report,
    inos: Iterable[int] | None = None,
    *,
    wait: Callable[[float], bool] = lambda _: False,
    pause: Callable[[int], None] = lambda _: None,
) -> None:
    """Count the same into this report, which holds what was counted even after a `StoppedError`."""
    for batch in batches(cluster, pages, inos, report, wait=wait, pause=pause):
        for subject in batch:
            report.seen(subject)


def batches(
    cluster: ClusterLike,
    pages: Pages,
    inos: Iterable[int] | None,
    report: Report,
    *,
    wait: Callable[[float], bool],
    pause: Callable[[int], None],
) -> Iterator[list[Subject]]:
    """Yield all segments of all files, or of some, in batches. Unreadable records are counted in the report.

    `wait` sleeps for a number of seconds and returns whether to stop; `pause` waits until this many bytes may be moved.
    Raises UnavailableError, `StoppedError`.
    """
    pages.begin()
    report.noted = bad = noted(pages)
    subjects = (subject for page in walk(pages, inos) for record in page for subject in _of(record, report))
    for batch in by_count(subjects, BATCH_SEGMENTS):
        pause(len(batch) * LOOK_COST_BYTES)
        if wait(0.0):
            raise StoppedError
        _look(cluster, batch, wait)
        if bad:
            for subject in batch:
                for number, holders in subject.holders.items():
                    holders -= {server for server in holders if (subject.segment.id, number, server) in bad}
        yield batch


def noted(pages: Pages) -> frozenset[Place]:
    """Return the copies noted as bad in the map. Call `pages.begin` first. Raises UnavailableError."""
    return frozenset(bad_copies.places(item for page in pages.pages(*bad_copies.RANGE) for item in page))


def _look(cluster: ClusterLike, batch: Sequence[Subject], wait: Callable[[float], bool]) -> None:
    """Ask all servers which copies they have. Those that do not answer count as having none."""
    wanted = HavePieces(tuple((subject.segment.id, number) for subject in batch for number in PIECE_NUMBERS))
    outcomes = ask(cluster, dict.fromkeys(sorted(cluster.usable()), wanted), wait)
    flags: dict[int, bytes] = {}
    for server, outcome in outcomes.items():
        said = outcome.reply if isinstance(outcome, Answer) else None
        if isinstance(said, Have) and len(said.flags) == len(wanted.pieces):
            flags[server] = said.flags
    answering = frozenset(flags)
    for at, subject in enumerate(batch):
        subject.answering = answering
        for offset, number in enumerate(PIECE_NUMBERS):
            place = at * len(PIECE_NUMBERS) + offset
            subject.holders[number] = {server for server, said in flags.items() if said[place]}


def _of(record: RegionRecord, report: Report) -> Iterator[Subject]:
    """Yield the segments of a record; if it cannot be read, it is only counted."""
    if record.region is None:
        report.unreadable += 1
        return
    ring = record.ring()
    for segment in record.region.segments:
        yield Subject(record.key, segment, ring or segment.homes, {})
