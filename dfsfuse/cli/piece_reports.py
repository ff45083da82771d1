"""Whether every piece has its two copies: counted now if that is quick, and what healing last said of it in the map; in
words, and for JSON.

Knows the walk over the records and the record of healing; not how it is written anywhere.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dfsfuse.cli.output import human_size, iso_time
from dfsfuse.errors import UnavailableError
from dfsfuse.upkeep import heal_state
from dfsfuse.upkeep.heal_report import Report
from dfsfuse.upkeep.heal_state import HealState
from dfsfuse.upkeep.heal_survey import survey
from dfsfuse.upkeep.map_reader import MapReader
from dfsfuse.upkeep.moving import StoppedError

if TYPE_CHECKING:
    from dfsfuse.cluster.quorum_log import QuorumLog
    from dfsfuse.data.transport import ClusterLike

SILENT_S = 30
"""Healing that says nothing for so long has probably been ended."""
QUICK_S = 2.0
"""Who asks how it is does not want to wait."""


@dataclass(frozen=True)
class PieceReport:
    """`counted` is None if counting takes long; `healing` if no mount and no command ever said anything."""

    counted: Report | None
    healing: HealState | None


def piece_report(
    cluster: ClusterLike, log: QuorumLog, clock: Callable[[], float] = time.monotonic
) -> PieceReport | None:
    """How the pieces are; None if the map cannot be read from the servers that answer."""
    until = clock() + QUICK_S
    pages = MapReader(log, recall=False)
    try:
        pages.begin()
        (record,) = pages.values([heal_state.KEY])
        counted = survey(cluster, pages, wait=lambda _: clock() >= until)
    except StoppedError:
        counted = None
    except UnavailableError:
        return None
    return PieceReport(counted, heal_state.decode(record))


# ------------------------------------------------------------------ as words, and for JSON


def about_pieces(report: PieceReport | None, now_ns: int) -> list[str]:
    """Whether every piece has its two copies, and how far healing is."""
    if report is None:
        return []
    lines = [] if report.counted is None else _about_count(report.counted)
    state = report.healing
    if state is not None and state.phase == "healing":
        lines.append(_about_healing(state, now_ns, is_counted=report.counted is not None))
    elif report.counted is None and state is not None:
        lines.append(_about_last_time(state, now_ns))
    elif report.counted is None:
        lines.append("There is too much to count quickly how many copies there are: 'dfc heal' looks at all.")
    return lines


def _about_count(found: Report) -> list[str]:
    if not (found.lacking or found.astray or found.unreadable):
        return [f"All {found.segments:,} segments of your files have two copies of every piece."]
    lines = []
    if found.lacking:
        text = f"{found.lacking:,} of {found.segments:,} segments lack a copy of some piece"
        if found.to_heal:
            text += f": {human_size(found.bytes_to_copy)} to copy; mounts heal that, or 'dfc heal'."
        else:
            text += " until the servers that have it answer again."
        lines.append(text)
    if found.incomplete:
        lines.append(f"{found.incomplete:,} of these have no copy of some piece that can be had now.")
    if found.astray:
        have = "segment has" if found.astray == 1 else "segments have"
        lines.append(f"{found.astray:,} {have} two copies, but not at home: mounts move them, or 'dfc heal'.")
    if found.unreadable:
        lines.append(f"{found.unreadable:,} records of files' data cannot be read: 'dfc fsck' says more.")
    return lines


def _about_healing(state: HealState, now_ns: int, *, is_counted: bool) -> str:
    """`is_counted`: how many segments lack a copy has just been said, and is newer than the record."""
    text = "Healing: " if is_counted else f"Healing: {state.lacking:,} of {state.segments:,} segments lack a copy; "
    text += f"{human_size(state.bytes_done)} of {human_size(state.bytes_total)} copied"
    if state.left_s is not None:
        text += f", {human_size(state.rate_bytes_s)}/s, done in about {_span(state.left_s)}"
    silent_s = (now_ns - state.changed_ns) / 1e9
    return f"{text} (nothing was heard of it for {_span(silent_s)})." if silent_s > SILENT_S else f"{text}."


def _about_last_time(state: HealState, now_ns: int) -> str:
    what = f"{state.lacking:,} of {state.segments:,} segments lacked a copy" if state.lacking else "all had two copies"
    return (
        f"When {state.segments:,} segments were last looked at, {_span((now_ns - state.changed_ns) / 1e9)} ago, {what}."
    )


def _span(seconds: float) -> str:
    """A length of time for people."""
    seconds = max(0, round(seconds))
    if seconds < 120:
        return f"{seconds} s"
    return f"{round(seconds / 60)} min" if seconds < 7200 else f"{round(seconds / 3600)} h"


def pieces_as_dictionary(report: PieceReport | None) -> dict[str, object]:
    """The same for JSON."""
    if report is None:
        return {"pieces": None, "healing": None}
    found, state = report.counted, report.healing
    return {
        "pieces": found
        and {
            "segments": found.segments,
            "lack_a_copy": found.lacking,
            "incomplete": found.incomplete,
            "not_at_home": found.astray,
            "can_be_healed": found.to_heal,
            "bytes_to_copy": found.bytes_to_copy,
            "unreadable_records": found.unreadable,
        },
        "healing": state
        and {
            "phase": state.phase,
            "segments": state.segments,
            "lack_a_copy": state.lacking,
            "incomplete": state.incomplete,
            "bytes_total": state.bytes_total,
            "bytes_done": state.bytes_done,
            "rate_bytes_s": state.rate_bytes_s,
            "left_s": None if state.left_s is None else round(state.left_s, 1),
            "changed": iso_time(state.changed_ns),
        },
    }
