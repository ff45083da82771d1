"""Reports whether all data has its two copies, in words and for JSON: counted now as far as that is quick, plus what
the map records about it (the last healing run, copies that were found to be bad).

Knows the walk over the records and the record of healing; `dfsfuse.upkeep.health` draws the conclusions.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dfsfuse.cli.output import counted as several
from dfsfuse.cli.output import human_size, iso_time
from dfsfuse.errors import StoppedError, UnavailableError
from dfsfuse.upkeep.heal import state as heal_state
from dfsfuse.upkeep.heal import survey as heal_survey
from dfsfuse.upkeep.heal.report import Report
from dfsfuse.upkeep.heal.state import HealState
from dfsfuse.upkeep.health.copies import Copies, Knowledge
from dfsfuse.upkeep.health.servers import ANSWERING, Server, listed
from dfsfuse.upkeep.map_reader import MapReader

if TYPE_CHECKING:
    from dfsfuse.data.transport import ClusterLike
    from dfsfuse.log.quorum_log import QuorumLog

SILENT_S = 30
"""After this long without a sign of life, healing has probably ended."""
QUICK_S = 2.0
"""Users who ask for the status do not want to wait longer."""
NEVER = float("inf")


@dataclass(frozen=True)
class PieceReport:
    """`counted` is what was counted, perhaps not everything. `healing` is None if no mount or command has recorded
    any."""

    counted: Report = field(default_factory=Report)
    all_counted: bool = True
    healing: HealState | None = None
    record: bytes | None = None
    """`healing`, encoded as it was read."""


def piece_report(
    cluster: ClusterLike, log: QuorumLog, for_s: float, clock: Callable[[], float] = time.monotonic
) -> PieceReport | None:
    """The state of the pieces, counted for at most `for_s`; None if the servers that answer cannot provide the map."""
    until = clock() + for_s
    pages = MapReader(log, recall=False)
    found = Report()
    all_counted = True
    try:
        pages.begin()
        (record,) = pages.values([heal_state.KEY])
        try:
            heal_survey.count(cluster, pages, found, wait=lambda _: clock() >= until)
        except StoppedError:
            all_counted = False
    except UnavailableError:
        return None
    return PieceReport(found, all_counted, heal_state.decode(record), record)


# ------------------------------------------------------------------ as words, and for JSON


def about_pieces(known: Knowledge, report: PieceReport | None, servers: Mapping[int, Server], now_ns: int) -> list[str]:
    """Whether all data has its two copies, and the progress of healing. `servers`: each server's state, by id."""
    if report is None:
        return ["The number of copies of your data cannot be determined: too few servers answer."]
    names = {id: server.name for id, server in servers.items()}
    away = [server.name for server in servers.values() if server.state not in ANSWERING]
    lines = _about_copies(known, away)
    if known.needed and known.copies in (Copies.DEGRADED, Copies.INCOMPLETE) and known.incomplete < known.files:
        only = listed([names[id] for id in sorted(known.needed)], "or")
        too = " too" if away else ""
        more = "more " if known.copies is Copies.INCOMPLETE else ""
        lines.append(f"If {only} failed{too}, {more}files could not be read.")
    found = report.counted
    if found.astray:
        lines.append("Some data is not on the servers where it belongs: mounts, or 'dfc heal', move it there.")
    if found.unreadable:
        lines.append(f"{several(found.unreadable, 'record')} of files' data cannot be read: 'dfc fsck' says more.")
    if report.healing is not None and report.healing.phase == heal_state.HEALING:
        lines.append(_about_healing(report.healing, now_ns))
    return lines


def _about_copies(known: Knowledge, away: list[str]) -> list[str]:
    if known.copies is Copies.UNKNOWN:
        return ["The number of copies of your data is not known: counting takes longer; use 'dfc status --count'."]
    if known.age_s is not None:
        ago = _span(known.age_s)
        what = "all data had its two copies"
        if known.copies is not Copies.WHOLE:
            what = f"{known.degraded:,} had fewer than two copies of some data"
        if known.incomplete:
            what += f", and {known.incomplete:,} could not be read"
        when = f"When it was last counted, {ago} ago ({_files(known.files)})"
        return [f"{when}, {what}; nothing is known to have changed since."]
    if known.copies is Copies.WHOLE:
        return [f"All data has its two copies ({_files(known.files)})." if known.files else "There is no data."]
    while_away = f" while {listed(away)} {'is' if len(away) == 1 else 'are'} down" if away else ""
    lines = []
    if known.incomplete:
        which = "" if away else "; 'dfc list -l -r' shows which"
        cannot = f"{_so_many(known.incomplete, known)} cannot"
        if known.incomplete == known.files > 1 and known.all_counted:
            cannot = f"None of the {known.files:,} files can"
        lines.append(f"{cannot} be read{while_away}: some of the data is on no other server{which}.")
    lacking = known.degraded - known.incomplete
    if lacking:
        have = "has" if lacking == 1 else "have"
        lines.append(f"{_so_many(lacking, known)} {have} only one copy of some data{while_away}.")
    if known.bytes_to_copy:
        lines.append(f"{human_size(known.bytes_to_copy)} can be copied now: mounts, or 'dfc heal', do it.")
    return lines


def _so_many(count: int, known: Knowledge) -> str:
    """A number of files, in relation to how many were counted."""
    if not known.all_counted:
        return f"{count:,} of the first {known.files:,} files"
    if count == known.files:
        return "1 file" if count == 1 else f"All {count:,} files"
    return f"{count:,} of {known.files:,} files"


def _files(count: int) -> str:
    return "1 file" if count == 1 else f"{count:,} files"


def _about_healing(state: HealState, now_ns: int) -> str:
    text = f"Healing: {human_size(state.bytes_done)} of {human_size(state.bytes_total)} copied"
    if state.left_s is not None:
        text += f", {human_size(state.rate_bytes_s)}/s, done in about {_span(state.left_s)}"
    silent_s = (now_ns - state.changed_ns) / 1e9
    return f"{text} (no sign of life for {_span(silent_s)})." if silent_s > SILENT_S else f"{text}."


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
        "pieces": {
            "all_counted": report.all_counted,
            "segments": found.segments,
            "lack_a_copy": found.lacking,
            "incomplete": found.incomplete,
            "not_at_home": found.astray,
            "can_be_healed": found.to_heal,
            "bytes_to_copy": found.bytes_to_copy,
            "unreadable_records": found.unreadable,
            "noted_bad_copies": len(found.noted),
            "files": found.files.count,
            "files_lacking_a_copy": found.files_lacking.count,
            "files_incomplete": found.files_incomplete.count,
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
