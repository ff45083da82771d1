"""Healing: every piece gets its two copies, on the homes of the ring if those answer. The rules are in `heal_plan`.

Goes through the region records in batches. For each batch the servers are asked what they have; copies are made;
records are changed to name the homes that the pieces have now; superfluous copies are dropped last, for segments whose
record that transaction saw unchanged. Killed anywhere in between, it leaves at most one copy too many.

Running two of these at once is harmless: both may make the same copy, and what one has moved the other leaves alone.

Knows no file system, no mount and no terminal. One thread at a time; nothing here waits longer than `moving` does
without checking whether to stop.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from dfs_server.protocol.messages import DropPieces, Have
from dfsfuse.common.portions import by_count
from dfsfuse.data.extents import Segment
from dfsfuse.data.transport import ClusterLike
from dfsfuse.errors import DfsError
from dfsfuse.namespace.map.transactions import MapStore
from dfsfuse.namespace.ops import bad_copies
from dfsfuse.net.exchange import Answer, Call
from dfsfuse.net.stalls import PIECE_S
from dfsfuse.upkeep.asking import results
from dfsfuse.upkeep.heal import homes, noting
from dfsfuse.upkeep.heal import survey as heal_survey
from dfsfuse.upkeep.heal.bandwidth import Bucket
from dfsfuse.upkeep.heal.homes import Rehome
from dfsfuse.upkeep.heal.moving import Move, Mover, Place
from dfsfuse.upkeep.heal.report import Report
from dfsfuse.upkeep.heal.survey import Subject
from dfsfuse.upkeep.map_reader import Pages

DROP_PIECES: Final = 250
"""At most this many copies are dropped by one request: a server checks each, and no client can put a piece there
meanwhile."""
ROUNDS: Final = 3
"""How often a segment is planned again when a copy that was relied on turned out to be bad."""
NOTED_AGE_S: Final = 1.0

log = logging.getLogger(__name__)


class Healer:
    """See the module. `wait` sleeps for a number of seconds and returns whether to stop."""

    def __init__(
        self,
        cluster: ClusterLike,
        pages: Pages,
        store: MapStore,
        *,
        bucket: Bucket | None = None,
        wait: Callable[[float], bool] = lambda _: False,
        clock: Callable[[], float] = time.monotonic,
        time_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._cluster = cluster
        self._pages = pages
        self._store = store
        self._time_ns = time_ns
        self._wait = wait
        self._mover = Mover(cluster, bucket or Bucket(None), wait, clock=clock)

    def survey(self, inos: Iterable[int] | None = None) -> Report:
        """Report what lacks a copy or is not on its proper homes, for all files or some. Changes nothing.

        Raises UnavailableError, `StoppedError`.
        """
        return heal_survey.survey(self._cluster, self._pages, inos, wait=self._wait, pause=self._mover.pause)

    def heal(self, inos: Iterable[int] | None = None, on_progress: Callable[[Report], None] = lambda _: None) -> Report:
        """Make missing copies and move misplaced ones to their homes; reports what was done and what is left.

        Raises UnavailableError (and ReadOnlyError: then records stay as they are), `StoppedError`.
        """
        report = Report()
        self._mover.begin()
        passed: set[bytes] = set()
        for batch in heal_survey.batches(
            self._cluster, self._pages, inos, report, wait=self._wait, pause=self._mover.pause
        ):
            for subject in batch:
                report.seen(subject)
            passed |= {subject.segment.id for subject in batch} if report.noted else set()
            self._heal([subject for subject in batch if subject.is_work], report, on_progress)
            for subject in batch:
                report.left(subject)
            on_progress(report)
        if inos is None:
            self._take_back([place for place in report.noted if place[0] not in passed])
        return report

    def restore(self, segments: Sequence[tuple[Segment, int, int]]) -> Report:
        """Restore these copies (segment, number, server), which were found bad or missing, from their twins.

        Raises `StoppedError`.
        """
        report = Report()
        self._mover.begin()
        moves = []
        for segment, number, server in segments:
            sources = dict.fromkeys((*segment.homes[number - 1], *sorted(self._cluster.usable())))
            others = tuple(source for source in sources if source != server)
            moves.append(Move(segment, number, server, others, replace=True))
        noted = frozenset(self._store.read(bad_copies.find, max_age_s=NOTED_AGE_S))
        good: list[Place] = []
        bad: set[Place] = {(move.segment.id, move.number, move.target) for move in moves}
        for moved in self._mover.move(moves):
            report.moved(moved)
            good += [(move.segment.id, move.number, move.target) for move in moved.done]
            bad |= moved.unfit.keys()
        self._note(noted, good, bad)
        return report

    # -------------------------------------------------------------- healing

    def _heal(self, subjects: Sequence[Subject], report: Report, on_progress: Callable[[Report], None]) -> None:
        unfit: set[Place] = set(report.noted)
        good: list[Place] = []
        todo = list(subjects)
        for _ in range(ROUNDS):
            again = self._copy(todo, unfit, good, report, on_progress)
            todo = [subject for subject in todo if subject.segment.id in again]
            if not todo:
                break
        self._note(report.noted, good, unfit - report.noted)
        self._settle(subjects, report)

    def _note(self, noted: frozenset[Place], good: Sequence[Place], bad: Iterable[Place]) -> None:
        """Note in the map which copies were found to be bad and still are, and remove notes of those that are good
        now."""
        left = noting.believed(self._cluster, set(bad).difference(good, noted), self._wait)
        self._take_back([place for place in good if place in noted])
        try:
            bad_copies.note(self._store, left, self._time_ns())
        except (DfsError, OSError) as error:
            log.info("%d bad copies could not be noted: %s", len(left), error)

    def _take_back(self, places: Sequence[Place]) -> None:
        try:
            bad_copies.take_back(self._store, places)
        except (DfsError, OSError) as error:
            log.info("could not note that %d copies are good again: %s", len(places), error)

    def _copy(
        self,
        subjects: Sequence[Subject],
        unfit: set[Place],
        good: list[Place],
        report: Report,
        on_progress: Callable[[Report], None],
    ) -> set[bytes]:
        """Make missing copies. Returns the segments of which a copy was found to be bad in the process."""
        of = {subject.segment.id: subject for subject in subjects}
        moves = [
            Move(subject.segment, t.number, t.target, t.sources, (subject.segment.id, t.number, t.target) in unfit)
            for subject in subjects
            for t in subject.transfers()
        ]
        again: set[bytes] = set()
        for moved in self._mover.move(moves):
            touched = [of[segment] for segment in {move.segment.id for move in moved.done}]
            lacked = sum(subject.lacks_a_copy for subject in touched)
            for move in moved.done:
                of[move.segment.id].holders[move.number].add(move.target)
                good.append((move.segment.id, move.number, move.target))
            report.healed += lacked - sum(subject.lacks_a_copy for subject in touched)
            for segment, number, server in moved.unfit:
                of[segment].holders[number].discard(server)
                again.add(segment)
            unfit.update(moved.unfit)
            report.moved(moved)
            on_progress(report)
        return again

    def _settle(self, subjects: Sequence[Subject], report: Report) -> None:
        """Change the records first, then drop."""
        settled = {subject: subject.settled() for subject in subjects}
        changes = [
            Rehome(subject.key, subject.segment, homes_now)
            for subject, (homes_now, drops) in settled.items()
            if drops or homes_now != subject.segment.homes
        ]
        for portion in homes.portions(changes):
            confirmed = self._store.transact(lambda tx, portion=portion: homes.save(tx, portion))  # type: ignore[misc]
            report.went_home += sum(c.segment.id in confirmed and c.homes != c.segment.homes for c in portion)
            here = {change.segment.id for change in portion}
            self._drop(
                [
                    (subject.segment.id, number, server)
                    for subject, (_, drops) in settled.items()
                    if subject.segment.id in here & confirmed
                    for number, server in drops
                ],
                report,
            )

    def _drop(self, places: Sequence[Place], report: Report) -> None:
        requests = []
        for server in sorted({server for _, _, server in places}):
            pieces = [(segment, number) for segment, number, at in places if at == server]
            for portion in by_count(pieces, DROP_PIECES):
                requests.append(Call(server, DropPieces(tuple(portion), 0), stall_s=PIECE_S))
        with self._cluster.exchange() as exchange:
            for call in requests:
                exchange.start(call)
            for result in results(exchange, lambda _: False):  # what is settled is dropped even when stopping
                if isinstance(result, Answer) and isinstance(result.reply, Have):
                    report.dropped += sum(result.reply.flags)
