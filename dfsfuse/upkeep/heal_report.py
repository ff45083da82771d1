"""What healing saw, did, and had to leave: numbers, for those who wait and for those who ask later. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from dfsfuse.data.extents import Segment
from dfsfuse.data.placement import COPIES
from dfsfuse.upkeep import heal_plan, whole_pieces
from dfsfuse.upkeep.heal_plan import Holders, Transfer
from dfsfuse.upkeep.moving import Moved

REASONS_MAX: Final = 8
"""So many different reasons are kept; more do not help anybody."""


class SubjectLike(Protocol):
    """A segment with what is known of its copies: see `heal.Subject`."""

    @property
    def segment(self) -> Segment: ...
    @property
    def holders(self) -> Holders: ...
    def transfers(self) -> tuple[Transfer, ...]: ...
    def settled(self) -> heal_plan.Settled: ...


@dataclass
class Report:
    """Counts of segments, unless it says otherwise."""

    segments: int = 0
    """Looked at."""
    lacking: int = 0
    """Of which some piece had fewer than two copies that could be had."""
    incomplete: int = 0
    """Of which some piece had none (these are lacking too)."""
    to_heal: int = 0
    """Of which copies can be made now, since the servers that should have them answer."""
    astray: int = 0
    """With two copies of everything, but not all on the homes of the ring, or with copies too many."""
    bytes_to_copy: int = 0
    """What it takes to give all of them what they lack."""
    unreadable: int = 0
    """Records that cannot be read: what they refer to is not known."""

    copied: Counter[int] = field(default_factory=Counter)
    """Copies of pieces made, by server."""
    bytes_copied: int = 0
    went_home: int = 0
    """Whose record names other homes now."""
    dropped: int = 0
    """Superfluous copies of pieces."""
    bad: int = 0
    """Copies of pieces that were found to be bad or gone when they were read."""
    healed: int = 0
    """That lacked a copy and no longer do. Grows with the copies; `left` counts it anew."""
    still_lacking: int = 0
    still_incomplete: int = 0
    reasons: dict[str, None] = field(default_factory=dict)
    """Why copies could not be made, as sentences."""

    @property
    def is_work(self) -> bool:
        """Is there something that can be done now?"""
        return bool(self.to_heal or self.astray)

    def seen(self, subject: SubjectLike) -> None:
        """A segment was looked at."""
        self.segments += 1
        copies = heal_plan.copies(subject.holders)
        transfers = subject.transfers()
        self.lacking += copies < COPIES
        self.incomplete += copies == 0
        if any(t.sources for t in transfers):
            self.to_heal += 1
            self.bytes_to_copy += sum(whole_pieces.length_of(subject.segment, t.number) for t in transfers if t.sources)
        if copies >= COPIES:
            homes, drops = subject.settled()
            self.astray += bool(transfers or drops or homes != subject.segment.homes)

    def left(self, subject: SubjectLike) -> None:
        """A segment was healed as far as that is possible just now; what `seen` counted was before."""
        copies = heal_plan.copies(subject.holders)
        self.still_lacking += copies < COPIES
        self.still_incomplete += copies == 0
        self.healed = self.lacking - self.still_lacking

    def moved(self, moved: Moved) -> None:
        """Some copies were made, or not."""
        for move in moved.done:
            self.copied[move.target] += 1
            self.bytes_copied += move.size_bytes
        self.bad += len(moved.unfit)
        for text in moved.failed.values():
            if len(self.reasons) < REASONS_MAX:
                self.reasons.setdefault(text)

    def told(self, names: Mapping[int, str]) -> str:
        """What was done, as a sentence's part."""
        done = []
        if self.copied:
            where = ", ".join(f"{count} on {names[server]}" for server, count in sorted(self.copied.items()))
            done.append(f"{self.copied.total()} copies of pieces made ({where}; {self.bytes_copied / 2**20:.1f} MiB)")
        if self.went_home:
            done.append(f"{self.went_home} segments brought home")
        if self.dropped:
            done.append(f"{self.dropped} superfluous copies dropped")
        return ", ".join(done) or "nothing to do"
