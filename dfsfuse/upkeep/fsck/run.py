"""fsck: repeated checks of a whole namespace, with repairs in between if requested.

    1. the servers' maps      `compare`
    2. the map's records snapshot, `examine`, `mend`; repeated until nothing is left to repair
    3. the pieces are they on their homes? `heal` makes missing copies
    4. orphans unreferenced pieces: `sweep`
    5. dead mounts their sessions and locks, observed from the start: `fsck_sessions`

No repair loses anything; and nothing is repaired at all while the servers' maps differ: the map that is read may be the
damaged one, and whatever it has lost would be "repaired" away, or swept, on the others too. Single-threaded.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

from dfsfuse.data.transport import ClusterLike
from dfsfuse.errors import UnavailableError
from dfsfuse.log.quorum_log import QuorumLog
from dfsfuse.namespace.map.transactions import MapStore
from dfsfuse.upkeep.fsck import pieces as fsck_pieces
from dfsfuse.upkeep.fsck.examine import Examined, examine, mend
from dfsfuse.upkeep.fsck.pieces import Pieces
from dfsfuse.upkeep.fsck.records import Finding
from dfsfuse.upkeep.fsck.sessions import Sessions
from dfsfuse.upkeep.fsck.snapshot import Asked, Comparison, compare, snapshot
from dfsfuse.upkeep.heal.healing import Healer
from dfsfuse.upkeep.heal.report import Report as Healed
from dfsfuse.upkeep.map_reader import MapReader
from dfsfuse.upkeep.sweep.sessions import Remains
from dfsfuse.upkeep.sweep.sweeping import Sweeper, Swept, claim

PASSES: Final = 8
"""How often a repair is retried if others change the same records meanwhile."""


class Servers(ClusterLike, Asked, Protocol):
    """The part of `Cluster` that is used here."""


@dataclass
class Checked:
    """The overall result."""

    findings: list[Finding] = field(default_factory=list)
    """Problems in the map's records that are still there."""
    mended: list[Finding] = field(default_factory=list)
    files: int = 0
    folders: int = 0
    slot: int = 0
    is_newest: bool = True
    """Whether a quorum answered. Otherwise there may be newer changes that cannot be seen now."""
    path: Callable[[int], bytes] = lambda ino: b"(inode %d)" % ino
    comparison: Comparison = field(default_factory=lambda: Comparison(frozenset(), {}, {}))
    pieces: Pieces = field(default_factory=Pieces)
    healed: Healed | None = None
    swept: Swept = field(default_factory=Swept)
    remains: Remains = field(default_factory=Remains)
    """What dead mounts left. It harms nobody; the namespace counts as sound with it."""
    are_ended: bool = False
    """Whether those were ended."""

    @property
    def may_repair(self) -> bool:
        """Return whether it is known what is right."""
        return not self.comparison.differing

    @property
    def is_sound(self) -> bool:
        """Return whether everything that was checked is as it should be, and everything was checked."""
        lacking = len(self.pieces.lacks) if self.healed is None else self.healed.still_lacking
        left = self.swept.orphans - self.swept.dropped
        unreachable = {**self.comparison.absent, **self.pieces.unreachable, **self.swept.unreachable}
        doubts = self.comparison.differing or self.comparison.undecided or self.swept.hindrance or unreachable
        return self.is_newest and not (self.findings or lacking or left or doubts)


class Fsck:
    """See the module. `step` is called with what is checked now, `on_progress` with the number of items checked."""

    def __init__(
        self,
        cluster: Servers,
        store: MapStore,
        new_log: Callable[[], QuorumLog],
        *,
        now_ns: Callable[[], int],
        client: bytes,
        step: Callable[[str], None] = lambda _: None,
        on_progress: Callable[[int], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], object] = time.sleep,
    ) -> None:
        self._cluster = cluster
        self._store = store
        self._log = new_log()
        self._pages = MapReader(self._log)
        self._now_ns = now_ns
        self._client = client
        self._step = step
        self._on_progress = on_progress
        self._clock = clock
        self._pause = pause

    def run(self, *, repair: bool) -> Checked:
        """Check everything. Raises DfsError."""
        checked = Checked()
        sessions = Sessions(self._pages, self._clock, self._pause)
        self._step("comparing the servers' maps")
        checked.comparison = compare(self._cluster, self._log, self._on_progress)
        repair = repair and checked.may_repair
        examined = self._records(checked, repair=repair)
        self._step("asking for the pieces")
        checked.pieces = fsck_pieces.check(self._cluster, self._pages, examined.segments, self._on_progress)
        if repair and (checked.pieces.lacks or checked.pieces.away):
            self._step("healing")
            checked.healed = Healer(self._cluster, self._pages, self._store).heal()
        self._step("looking for orphans")
        may_drop = repair and claim(self._store, self._now_ns(), self._client, every_ns=0)
        checked.swept = Sweeper(self._cluster, self._pages).sweep(drop=may_drop)
        if repair and not may_drop and checked.swept.orphans and not checked.swept.hindrance:
            checked.swept.hindrance = "a newer program sweeps here, in a way unknown to this one"
        self._step("waiting for signs of life from lock holders")
        checked.remains = sessions.end_dead(self._store) if repair else sessions.remains()
        checked.are_ended = repair
        return checked

    def _records(self, checked: Checked, *, repair: bool) -> Examined:
        self._step("reading the map")
        for _ in range(PASSES):
            state = snapshot(self._log, self._on_progress)
            examined = examine(state.items, self._now_ns())
            checked.findings, checked.slot, checked.is_newest = examined.findings, state.slot, state.is_newest
            checked.files, checked.folders, checked.path = examined.files, examined.folders, examined.path
            if not repair or not examined.draft.changes:
                return examined
            if mend(self._store, examined.draft):
                checked.mended += [finding for finding in examined.findings if finding.mends]
        raise UnavailableError("others keep changing the same files: try again when less is written")
