"""What healing saw, did and had to leave: numbers for those who wait and those who ask later. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from dfs_server.protocol.limits import COPIES
from dfsfuse.data.extents import Segment
from dfsfuse.namespace.ops.bad_copies import Place
from dfsfuse.namespace.records import keys
from dfsfuse.upkeep import whole_pieces
from dfsfuse.upkeep.heal import plan as heal_plan
from dfsfuse.upkeep.heal.plan import Holders, Transfer

REASONS_MAX: Final = 8
"""At most this many different reasons are kept; more would not help."""


NAMED_MAX: Final = 5
"""At most this many incomplete files are named."""


class SubjectLike(Protocol):
    """A segment with what is known about its copies: see `heal.Subject`."""

    @property
    def key(self) -> bytes: ...
    @property
    def segment(self) -> Segment: ...
    @property
    def holders(self) -> Holders: ...
    def transfers(self) -> tuple[Transfer, ...]: ...
    def settled(self) -> heal_plan.Settled: ...


class MoveLike(Protocol):
    """See `moving.Move`."""

    @property
    def target(self) -> int: ...
    @property
    def size_bytes(self) -> int: ...


class MovedLike(Protocol):
    """The outcome of some moves: see `moving.Moved`."""

    @property
    def done(self) -> Sequence[MoveLike]: ...
    @property
    def failed(self) -> Mapping[Any, str]: ...
    @property
    def unfit(self) -> Mapping[Place, str]: ...


@dataclass
class Files:
    """Counts different files, given that the items of one file come in succession."""

    count: int = 0
    _last: int | None = None

    def add(self, ino: int) -> None:
        """Count an item of this file."""
        self.count += ino != self._last
        self._last = ino


@dataclass
class Report:
    """Counts of segments unless stated otherwise."""

    segments: int = 0
    """The number examined."""
    lacking: int = 0
    """Those with some piece that had fewer than two reachable copies."""
    incomplete: int = 0
    """Those with some piece that had none (these are also lacking)."""
    to_heal: int = 0
    """Those for which copies can be made now, since the servers that should have them answer."""
    astray: int = 0
    """Those with two copies of everything, but not all on the homes of the ring, or with superfluous copies."""
    bytes_to_copy: int = 0
    """The bytes needed to give all of them what they lack."""
    unreadable: int = 0
    """Records that cannot be read: what they refer to is unknown."""
    files: Files = field(default_factory=Files)
    files_lacking: Files = field(default_factory=Files)
    files_incomplete: Files = field(default_factory=Files)
    """The same as `segments`, `lacking` and `incomplete`, in files."""
    noted: frozenset[Place] = frozenset()
    """Copies that were noted as bad in the map at the time of the survey: each counts as missing."""
    absent: Counter[int] = field(default_factory=Counter)
    """By server: missing copies that can be made there, since it answers and has no good one."""
    needed: Counter[int] = field(default_factory=Counter)
    """By server: segments for which it has the only reachable copy of some piece."""

    copied: Counter[int] = field(default_factory=Counter)
    """Copies of pieces made, by server."""
    bytes_copied: int = 0
    went_home: int = 0
    """Segments whose record now names other homes."""
    dropped: int = 0
    """Superfluous copies of pieces."""
    bad: int = 0
    """Copies of pieces that turned out to be bad or gone when they were read."""
    healed: int = 0
    """Those that lacked a copy and no longer do. Grows as copies are made; `left` recounts it."""
    still_lacking: int = 0
    still_incomplete: int = 0
    still_files_lacking: Files = field(default_factory=Files)
    still_files_incomplete: Files = field(default_factory=Files)
    incomplete_inos: list[int] = field(default_factory=list)
    """The first few of these files."""
    seen_incomplete_inos: list[int] = field(default_factory=list)
    """The first few that were incomplete before anything was done."""
    reasons: dict[str, None] = field(default_factory=dict)
    """Why copies could not be made, as sentences."""

    @property
    def is_work(self) -> bool:
        """Return whether there is something that can be done now."""
        return bool(self.to_heal or self.astray)

    def seen(self, subject: SubjectLike) -> None:
        """Count a segment that was examined."""
        self.segments += 1
        copies = heal_plan.copies(subject.holders)
        transfers = subject.transfers()
        ino = keys.number_in(subject.key)
        self.files.add(ino)
        if copies < COPIES:
            self.lacking += 1
            self.files_lacking.add(ino)
            self.needed.update({server for have in subject.holders.values() if len(have) == 1 for server in have})
            self.absent.update(transfer.target for transfer in transfers if transfer.sources)
        if copies == 0:
            self.incomplete += 1
            self.files_incomplete.add(ino)
            _name(self.seen_incomplete_inos, ino)
        if any(t.sources for t in transfers):
            self.to_heal += 1
            self.bytes_to_copy += sum(whole_pieces.length_of(subject.segment, t.number) for t in transfers if t.sources)
        if copies >= COPIES:
            homes, drops = subject.settled()
            self.astray += bool(transfers or drops or homes != subject.segment.homes)

    def left(self, subject: SubjectLike) -> None:
        """Count a segment that was healed as far as is possible now; `seen` counted what was before."""
        copies = heal_plan.copies(subject.holders)
        ino = keys.number_in(subject.key)
        if copies < COPIES:
            self.still_lacking += 1
            self.still_files_lacking.add(ino)
        if copies == 0:
            self.still_incomplete += 1
            _name(self.incomplete_inos, ino)
            self.still_files_incomplete.add(ino)
        self.healed = self.lacking - self.still_lacking

    def as_left(self) -> Report:
        """Return the state afterwards: as a survey would count it, except for which servers are needed."""
        return Report(
            segments=self.segments,
            lacking=self.still_lacking,
            incomplete=self.still_incomplete,
            unreadable=self.unreadable,
            files=self.files,
            files_lacking=self.still_files_lacking,
            files_incomplete=self.still_files_incomplete,
        )

    def nothing_done(self) -> None:
        """Record that nothing needed to be done, or could be: what was seen is what is left."""
        self.still_lacking, self.still_incomplete = self.lacking, self.incomplete
        self.still_files_lacking, self.still_files_incomplete = self.files_lacking, self.files_incomplete
        self.incomplete_inos = list(self.seen_incomplete_inos)

    def moved(self, moved: MovedLike) -> None:
        """Count copies that were made, or failed."""
        for move in moved.done:
            self.copied[move.target] += 1
            self.bytes_copied += move.size_bytes
        self.bad += len(moved.unfit)
        for text in moved.failed.values():
            if text and len(self.reasons) < REASONS_MAX:
                self.reasons.setdefault(text)

    def told(self, names: Mapping[int, str]) -> str:
        """Return what was done, as part of a sentence."""
        done = []
        if self.copied:
            where = ", ".join(f"{count} on {names[server]}" for server, count in sorted(self.copied.items()))
            copies = _counted(self.copied.total(), "copy of a piece", "copies of pieces")
            done.append(f"{copies} made ({where}; {self.bytes_copied / 2**20:.1f} MiB)")
        if self.went_home:
            done.append(f"{_counted(self.went_home, 'part of a file', 'parts of files')} moved to the proper servers")
        if self.dropped:
            done.append(f"{_counted(self.dropped, 'superfluous copy', 'superfluous copies')} dropped")
        return ", ".join(done) or "nothing to do"


def _counted(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"


def _name(inos: list[int], ino: int) -> None:
    """Add a file to the few that are named."""
    if len(inos) < NAMED_MAX and ino not in inos:
        inos.append(ino)
