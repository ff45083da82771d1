"""How far healing has got, as a record in the map: for other mounts, which need not do the same, and `dfc status`.
Pure.

Runs are numbered. Beginning a run replaces the record as it was read (`claim`), so that of two that begin at once only
one succeeds. The record keeps changing during a run, since it has a beat: a client that finds it unchanged for
`SILENT_S`, by its own clock, considers its healer dead. Clocks are never compared with one another.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Final, NamedTuple

import msgspec

from dfsfuse.common import codec
from dfsfuse.common.codec import Codec
from dfsfuse.namespace.map.transactions import Transaction
from dfsfuse.namespace.records import keys
from dfsfuse.upkeep.heal.report import Report

FORMAT: Final = 1
SILENT_S: Final = 20.0
"""A healer writes every two seconds; one that has been silent for this long is gone."""

KEY: Final = keys.HEALING
"""Where the record is stored."""
HEALING: Final = "healing"
DONE: Final = "done"
STOPPED: Final = "stopped"


class ServerSeen(NamedTuple):
    """A server while data was counted. If its disk changes, or it finds more bad pieces, the count may no longer be
    true."""

    identity: bytes
    """The identity of its folder; empty if it did not answer."""
    quarantined: int = 0
    """How many bad pieces it had found by itself."""


class HealState(msgspec.Struct, frozen=True, array_like=True):
    """The record. Counts are of segments."""

    format: int
    run: int
    phase: str
    beat: int
    changed_ns: int
    """By the writer's clock: for people."""
    segments: int
    """The total when the run began."""
    lacking: int
    """Those that lack a copy of some piece; once it is done, those that still do."""
    incomplete: int
    """Those with some piece that has no reachable copy."""
    bytes_total: int
    bytes_done: int
    rate_bytes_s: int
    files: int = 0
    files_lacking: int = 0
    files_incomplete: int = 0
    """The same as `segments`, `lacking` and `incomplete`, in files that have data."""
    servers: tuple[ServerSeen, ...] = ()
    """The four, ordered by id, as they were when the run began; empty in a record of an older version."""

    @property
    def left_s(self) -> float | None:
        """Return the seconds until it is done; None if unknown."""
        if self.phase != HEALING or not self.rate_bytes_s:
            return None
        return max(0, self.bytes_total - self.bytes_done) / self.rate_bytes_s


_records = Codec(HealState, "how far healing is", FORMAT)


def encode(state: HealState) -> bytes:
    """The record as stored in the map."""
    return codec.encode(state)


def decode(data: bytes | None) -> HealState | None:
    """Decode the record; None if there is none, or it is of another version: it is only news."""
    return _records.find(data)


def claim(tx: Transaction, seen: bytes | None, state: HealState) -> bytes | None:
    """Replace the record that was seen with `state`. Returns the new record; None if the old one has changed."""
    if tx.get(keys.HEALING) != seen:
        return None
    new = encode(state)
    tx.put(keys.HEALING, new)
    return new


def beginning(before: HealState | None, found: Report, now_ns: int, servers: tuple[ServerSeen, ...] = ()) -> HealState:
    """Return the next run's state, after a survey. `servers`: as they were before it."""
    run = before.run + 1 if before else 1
    return HealState(
        FORMAT, run, HEALING, 0, now_ns, found.segments, found.lacking, found.incomplete, found.bytes_to_copy, 0, 0,
        found.files.count, found.files_lacking.count, found.files_incomplete.count, servers,
    )  # fmt: skip


def going_on(state: HealState, report: Report, ran_s: float, now_ns: int) -> HealState:
    """Return the same run's state, a little later."""
    return msgspec.structs.replace(
        state,
        beat=state.beat + 1,
        changed_ns=now_ns,
        lacking=max(0, state.lacking - report.healed),
        bytes_done=report.bytes_copied,
        rate_bytes_s=round(report.bytes_copied / ran_s) if ran_s > 0 else 0,
    )


def ended(state: HealState, report: Report, now_ns: int) -> HealState:
    """Return the run's state when everything was checked."""
    return msgspec.structs.replace(
        state,
        phase=DONE,
        changed_ns=now_ns,
        segments=report.segments,
        lacking=report.still_lacking,
        incomplete=report.still_incomplete,
        bytes_done=report.bytes_copied,
        files=report.files.count,
        files_lacking=report.still_files_lacking.count,
        files_incomplete=report.still_files_incomplete.count,
    )


def found_only(state: HealState, found: Report) -> HealState:
    """Return the run's state if the survey found nothing that can be done now."""
    return msgspec.structs.replace(state, phase=DONE, lacking=found.lacking, incomplete=found.incomplete)


def refuted(state: HealState, found: Report, now_ns: int) -> HealState:
    """Return the state of the finished run after a count found more lacking than it left. Its number stays: this is not
    a run, and no mount waiting for one has got it."""
    return msgspec.structs.replace(
        state,
        beat=state.beat + 1,
        changed_ns=now_ns,
        segments=max(state.segments, found.segments),
        lacking=found.lacking,
        incomplete=found.incomplete,
        files=max(state.files, found.files.count),
        files_lacking=found.files_lacking.count,
        files_incomplete=found.files_incomplete.count,
    )


def stopped(state: HealState, now_ns: int) -> HealState:
    """Mark the run as not being continued: anyone with a reason may begin another one at once."""
    return msgspec.structs.replace(state, phase=STOPPED, beat=state.beat + 1, changed_ns=now_ns)


class Step(Enum):
    """What a mount's healer does next."""

    REST = auto()
    WAIT = auto()
    """Another healer is at work."""
    RUN = auto()


class Turns:
    """Whether this mount should heal now, or another one does so or has done it. For one thread only."""

    def __init__(self) -> None:
        self._wanted: int | None = None
        """This run, or a later one, must be done: such runs began after there was a reason."""
        self._seen: bytes | None = None
        self._seen_at = 0.0

    @property
    def is_wanted(self) -> bool:
        """Return whether there is a reason to heal."""
        return self._wanted is not None

    def want(self, record: bytes | None) -> None:
        """Record a reason: something may lack a copy. A run in progress may have passed it already."""
        state = decode(record)
        self._wanted = (state.run if state else 0) + 1

    def done(self) -> None:
        """Record that everything was checked and all that was possible was done."""
        self._wanted = None

    def next(self, record: bytes | None, now: float) -> Step:
        """Return what to do, given the current record."""
        if self._wanted is None:
            return Step.REST
        state = decode(record)
        if state is not None and state.phase == HEALING and not self._is_silent(record, now):
            return Step.WAIT
        if state is not None and state.phase == DONE and state.run >= self._wanted:
            self._wanted = None
            return Step.REST
        return Step.RUN

    def _is_silent(self, record: bytes | None, now: float) -> bool:
        if record != self._seen:
            self._seen, self._seen_at = record, now
        return now - self._seen_at >= SILENT_S
