"""What is known about the copies of all data, and how old that knowledge is. Pure.

    whole       every file's data has two copies of everything, each on a server that answers
    degraded    some data has only one reachable copy, and no data has none
    incomplete  some data has no reachable copy: those files cannot be read
    unknown     nothing was counted since a change that may have cost copies

A count made now is true now, less what has been noted as bad (`dfsfuse.namespace.ops.bad_copies`). A count that was not
finished is true for what it found, and leaves the rest unknown: it never says `whole`. What an earlier count found (the
record of `heal_state`) holds only while nothing has changed that could make it untrue: the same four disks answer as
before, no server has found more bad pieces, and no bad copy has been noted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from dfsfuse.upkeep.heal import state as heal_state
from dfsfuse.upkeep.heal.report import Report
from dfsfuse.upkeep.heal.state import HealState, ServerSeen

NS = 1_000_000_000


class Copies(StrEnum):
    """See the module."""

    WHOLE = "whole"
    DEGRADED = "degraded"
    INCOMPLETE = "incomplete"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Knowledge:
    """What is known. Counts are of files that have data."""

    copies: Copies
    files: int = 0
    degraded: int = 0
    """Files with some data that has fewer than two reachable copies."""
    incomplete: int = 0
    """Of these, the files with some data that has none."""
    bytes_to_copy: int = 0
    """What can be copied now to give data its second copy."""
    needed: frozenset[int] = frozenset()
    """Ids of the servers that have the only copy of something."""
    age_s: float | None = None
    """None: counted now. Otherwise how long ago; nothing has changed since that could make it untrue."""
    all_counted: bool = True
    """Whether all data was examined. If not, the counts cover what was."""


UNKNOWN = Knowledge(Copies.UNKNOWN)


def known(
    counted: Report | None,
    *,
    all_counted: bool,
    record: HealState | None,
    seen_now: Sequence[ServerSeen],
    noted: bool,
    now_ns: int,
) -> Knowledge:
    """Return what is known, from a count made now (None: there is none) and from the record of the last one.

    `seen_now`: the servers' disks and findings, as in the record. `noted`: whether bad copies are noted in the map.
    """
    now = None if counted is None else _from_count(counted, all_counted=all_counted)
    if now is not None and (all_counted or now.copies in (Copies.DEGRADED, Copies.INCOMPLETE)):
        return now
    if record is not None and not noted and record.phase == heal_state.DONE and stands(record.servers, seen_now):
        return _from_record(record, now_ns)
    return UNKNOWN if now is None else now


def is_refuted(record: HealState | None, found: Report, seen_now: Sequence[ServerSeen]) -> bool:
    """Return whether the record of the last count holds as far as can be seen, yet says less than was found now."""
    if record is None or record.phase != heal_state.DONE or not stands(record.servers, seen_now):
        return False
    return (found.lacking, found.incomplete) > (record.lacking, record.incomplete)


def stands(then: Sequence[ServerSeen], now: Sequence[ServerSeen]) -> bool:
    """Return whether what was counted while the servers were as `then` still holds while they are as `now`."""
    return bool(then) and all(one.identity for one in then) and tuple(then) == tuple(now)


def _from_count(found: Report, *, all_counted: bool) -> Knowledge:
    if found.incomplete or found.unreadable:
        copies = Copies.INCOMPLETE
    elif found.lacking:
        copies = Copies.DEGRADED
    else:
        copies = Copies.WHOLE if all_counted else Copies.UNKNOWN
    return Knowledge(
        copies,
        files=found.files.count,
        degraded=found.files_lacking.count,
        incomplete=found.files_incomplete.count,
        bytes_to_copy=found.bytes_to_copy,
        needed=frozenset(found.needed),
        all_counted=all_counted,
    )


def _from_record(record: HealState, now_ns: int) -> Knowledge:
    copies = Copies.INCOMPLETE if record.incomplete else Copies.DEGRADED if record.lacking else Copies.WHOLE
    return Knowledge(
        copies,
        files=record.files,
        degraded=record.files_lacking,
        incomplete=record.files_incomplete,
        age_s=max(0.0, (now_ns - record.changed_ns) / NS),
    )
