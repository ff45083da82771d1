"""Automatic healing in a mount: when there is a reason, at a bounded rate, and by one mount at a time.

Reasons: a mount starts; a server that was missing answers again (it may have missed pieces, or come back empty); a
server's scrub has put pieces into quarantine; a reader has found a copy that is bad or gone, which is restored at once;
and, now and then, no reason at all. `HealingTurn.step` does what is due; the thread that calls it once a second is
`BackgroundHealer`.

A run starts with a survey, and writes nothing anywhere if all is well. Everything else it does is in the record of
`heal_state`. Foreground work is not delayed: the map is read bypassing the mount's cache, and bytes come out of a
bucket.

Threads: `found_bad` may be called from any thread, and never waits. Everything else belongs to the one thread.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

from dfs_server.protocol.limits import QUORUM
from dfs_server.protocol.messages import Findings, GetFindings
from dfsfuse.common.worker import Worker
from dfsfuse.data.extents import Segment
from dfsfuse.errors import DfsError
from dfsfuse.namespace.map.transactions import MapStore
from dfsfuse.namespace.ops import bad_copies
from dfsfuse.namespace.ops.bad_copies import Place
from dfsfuse.namespace.records import keys
from dfsfuse.net.exchange import Answer
from dfsfuse.upkeep.asking import ask
from dfsfuse.upkeep.heal import state as heal_state
from dfsfuse.upkeep.heal.bandwidth import Bucket
from dfsfuse.upkeep.heal.healing import Healer
from dfsfuse.upkeep.heal.levels import wait_until_level
from dfsfuse.upkeep.heal.progress import Progress
from dfsfuse.upkeep.heal.report import Report
from dfsfuse.upkeep.heal.state import HealState, ServerSeen, Step, Turns
from dfsfuse.upkeep.health import disks
from dfsfuse.upkeep.health.watch import Watch
from dfsfuse.upkeep.map_reader import Pages

FIRST_S: Final = 10.0
"""Counted from the start of the mount."""
EVERY_S: Final = 6 * 3600.0
FINDINGS_EVERY_S: Final = 60.0
STEP_S: Final = 1.0
SETTLE_S: Final = 2.0
"""Counted from a server's return: its log is brought up to date first, and small pieces come with that."""
LOG_WAIT_S: Final = 20.0
"""How long a server may be behind before healing goes on without waiting for it."""
RETRY_FIRST_S: Final = 10.0
RETRY_LAST_S: Final = 600.0
NEWS_S: Final = 3600.0
"""How old the record may be if there is no news."""
BAD_MAX: Final = 1000
AGAIN_S: Final = 60.0
"""How long a copy that was restored, or could not be, is left alone, whatever readers report about it."""

log = logging.getLogger(__name__)


class ClusterWithComebacks(disks.Disks, Protocol):
    """See `dfsfuse.net.cluster.Cluster`."""

    def comebacks(self) -> dict[int, int]: ...


class HealingTurn:
    """What a mount's healer does, step by step."""

    def __init__(
        self,
        cluster: ClusterWithComebacks,
        pages: Pages,
        store: MapStore,
        *,
        bucket: Bucket,
        wait: Callable[[float], bool],
        clock: Callable[[], float] = time.monotonic,
        time_ns: Callable[[], int] = time.time_ns,
        first_s: float = FIRST_S,
        every_s: float = EVERY_S,
        settle_s: float = SETTLE_S,
    ) -> None:
        """`first_s`, `every_s`: when to check for the first time, and how often, without any other reason; `settle_s`:
        how long after a server's return."""
        self._settle_s = settle_s
        self._cluster = cluster
        self._every_s = every_s
        self._store = store
        self._wait = wait
        self._clock = clock
        self._time_ns = time_ns
        self._healer = Healer(cluster, pages, store, bucket=bucket, wait=wait, clock=clock)
        self._watch = Watch(cluster, wait)
        self._turns = Turns()
        self._comebacks = cluster.comebacks()
        self._due_at = clock() + first_s
        """When to check without any other reason."""
        self._not_before = 0.0
        self._retry_s = RETRY_FIRST_S
        self._told = ""
        """The last logged reason for trying again; empty once a run has ended since."""
        self._findings_at = clock() + FINDINGS_EVERY_S
        self._found: dict[int, Findings] = {}
        """What each server last said about its quarantine."""
        self._bad: deque[tuple[Segment, int, int]] = deque(maxlen=BAD_MAX)
        self._restored: dict[tuple[bytes, int, int], float] = {}
        self._noted: frozenset[Place] = frozenset()
        """Bad copies that were noted in the map when it was last checked."""

    def found_bad(self, segment: Segment, number: int, server: int) -> None:
        """Record that a reader got no good copy of this piece there. Called from any thread."""
        self._bad.append((segment, number, server))

    @property
    def is_wanted(self) -> bool:
        """Return whether there is a reason to heal."""
        return self._turns.is_wanted

    def step(self) -> None:
        """Do what is due. Raises `StoppedError`; no other exception is expected."""
        try:
            self._restore()
            self._look_for_reasons()
            is_waiting = self._turns.is_wanted and not self._can_write()
            if self._watch.has_changed() or (is_waiting and not self._watch.has_looked):
                self._watch.look(None)
            if self._turns.is_wanted and self._clock() >= self._not_before and self._can_write():
                record = self._record()
                if self._turns.next(record, self._clock()) is Step.RUN:
                    self._run(record)
        except (DfsError, OSError) as error:
            self._later()
            if str(error) != self._told:  # servers may be away for days
                self._told = str(error)
                log.info("healing: will be retried later: %s", error)

    # -------------------------------------------------------------- reasons

    def _look_for_reasons(self) -> None:
        now = self._clock()
        comebacks = self._cluster.comebacks()
        if comebacks != self._comebacks:
            self._turns.want(self._record())
            self._comebacks = comebacks
            self._not_before, self._retry_s = now + self._settle_s, RETRY_FIRST_S
        if now >= self._due_at:
            self._turns.want(self._record())
            self._due_at = now + self._every_s
        if now >= self._findings_at:
            self._findings_at = now + FINDINGS_EVERY_S
            if self._is_new_in_quarantine() or self._is_newly_noted():
                self._turns.want(self._record())

    def _is_new_in_quarantine(self) -> bool:
        """Return whether any server has found a bad piece since it was last asked. Others may have been forgotten
        meanwhile, so that the count alone says little."""
        outcomes = ask(self._cluster, dict.fromkeys(sorted(self._cluster.usable()), GetFindings()), self._wait)
        found = {
            server: outcome.reply
            for server, outcome in outcomes.items()
            if isinstance(outcome, Answer) and isinstance(outcome.reply, Findings)
        }
        is_new = any(_is_new(reply, self._found.get(server)) for server, reply in found.items())
        self._found.update(found)
        return is_new

    def _is_newly_noted(self) -> bool:
        """Return whether a bad copy was found and noted since this was last asked."""
        noted = self._store.read(bad_copies.find, max_age_s=STEP_S)
        before, self._noted = self._noted, noted
        return not noted <= before

    def _record(self) -> bytes | None:
        return self._store.read(lambda view: view.get(keys.HEALING), max_age_s=STEP_S)

    def _can_write(self) -> bool:
        return len(self._cluster.usable()) >= QUORUM

    def _later(self) -> None:
        self._not_before = self._clock() + self._retry_s
        self._retry_s = min(2 * self._retry_s, RETRY_LAST_S)

    # -------------------------------------------------------------- single copies

    def _restore(self) -> None:
        now = self._clock()
        self._restored = {place: at for place, at in self._restored.items() if now < at + AGAIN_S}
        wanted = []
        while self._bad:
            segment, number, server = self._bad.popleft()
            place = (segment.id, number, server)
            if place not in self._restored and server in self._cluster.usable():
                self._restored[place] = now
                wanted.append((segment, number, server))
        if not wanted:
            return
        report = self._healer.restore(wanted)
        log.info("healing: of %d copies that readers found bad or gone: %s", len(wanted), self._said(report))

    # -------------------------------------------------------------- a run

    def _run(self, record: bytes | None) -> None:
        self._look_and_heal(record)
        self._told = ""

    def _look_and_heal(self, record: bytes | None) -> None:
        wait_until_level(self._cluster, self._wait, self._clock, LOG_WAIT_S)
        answering = self._cluster.usable()
        servers = disks.seen(self._cluster, self._wait)
        found = self._healer.survey()
        before = heal_state.decode(record)
        state = heal_state.beginning(before, found, self._time_ns(), servers)
        self._watch.look(found)
        if not found.is_work and not found.noted:
            if self._is_news(before, found, servers):
                as_left = heal_state.found_only(state, found)
                self._store.transact(lambda tx: heal_state.claim(tx, record, as_left), durable=False)
            self._turns.done()
            return
        progress = Progress.begun(self._store, record, state, self._clock, self._time_ns)
        if progress is None:
            return  # another mount has just begun
        log.info(
            "healing: of %d parts of files %d lack a copy and %d are on the wrong servers; %.1f MiB to copy",
            found.segments,
            found.lacking,
            found.astray,
            found.bytes_to_copy / 2**20,
        )
        with progress:
            report = self._healer.heal(on_progress=lambda report: self._tell(progress, report))
            progress.ended(report)
        # What was counted while other servers answered no longer holds.
        self._watch.look(report.as_left() if self._cluster.usable() == answering else None)
        log.info(
            "healing: done in %.0f s: %s; %d parts of files lack a copy now",
            progress.ran_s(),
            self._said(report),
            report.still_lacking,
        )
        if report.reasons and report.still_lacking:
            self._later()
            self._turns.want(progress.record)
        else:
            self._turns.done()
            self._retry_s = RETRY_FIRST_S

    def _tell(self, progress: Progress, report: Report) -> None:
        progress.told(report)
        if self._watch.has_changed():  # a run may take hours
            self._watch.look(None)

    def _is_news(self, before: HealState | None, found: Report, servers: tuple[ServerSeen, ...]) -> bool:
        if before is None:
            return True
        same = (before.phase, before.lacking, before.incomplete) == (heal_state.DONE, found.lacking, found.incomplete)
        same = same and before.servers == servers
        return not same or self._time_ns() - before.changed_ns > NEWS_S * 1e9

    def _said(self, report: Report) -> str:
        said = report.told(self._cluster.names)
        return "; ".join([said, *report.reasons])


def _is_new(now: Findings, before: Findings | None) -> bool:
    """Return whether something is in quarantine that was not before. Not judged by time: a server's clock may be set
    back."""
    if before is None:
        return now.quarantined_count > 0
    return now.quarantined_count > before.quarantined_count or not {*now.quarantined} <= {*before.quarantined}


class BackgroundHealer:
    """The thread. `make` creates a turn, given the function to wait with."""

    def __init__(self, make: Callable[[Callable[[float], bool]], HealingTurn]) -> None:
        self._thread = Worker("healer", STEP_S, "healing")
        self._turn = make(self._thread.wait)
        self.found_bad = self._turn.found_bad

    def start(self) -> None:
        """Begin."""
        self._thread.start(self._turn.step)

    def close(self) -> None:
        """Stop, within a second. A hanging request is left to its own deadline."""
        self._thread.close()
