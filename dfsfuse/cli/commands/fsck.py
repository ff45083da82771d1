"""`dfc fsck`: is the whole namespace as it should be?"""

from __future__ import annotations

import os
import re
import time
from typing import TYPE_CHECKING

import click

from dfsfuse.cli import exit_codes
from dfsfuse.cli.client import Client
from dfsfuse.cli.output import complain, counted, human_size, json_text, printable, write_json, write_line
from dfsfuse.cli.progress import Bar
from dfsfuse.cli.reports import AlreadyReported
from dfsfuse.cluster.proposer import QUORUM

if TYPE_CHECKING:
    from dfsfuse.upkeep.fsck_records import Finding
    from dfsfuse.upkeep.fsck_run import Checked

LACKS_SHOWN = 20


@click.command("fsck", short_help="Check the whole namespace; --repair puts right what can be.")
@click.option("--repair", is_flag=True, help="Put right what can be put right without losing anything.")
@click.option("--json", "as_json", is_flag=True, help="As JSON, for programs.")
@click.pass_obj
def fsck(client: Client, repair: bool, as_json: bool) -> None:
    """Check the whole namespace: that every name leads to a file and every file has its names, that sizes and counts
    are right, that all four servers have the same map, that all pieces are on their homes, and that no pieces are left
    that nobody refers to. Files can be used meanwhile. If a mount died while it held locks, this takes as long as it
    may be silent, as a rule 20 s.

    With --repair, put right what can be put right without losing anything. What no name leads to gets one in
    /lost+found. What fsck does not understand it says, and never touches.

    The exit code is 0 if all is as it should be (now), and 14 if not; 7 if something is to be repaired and fewer than
    three servers answer, 6 if none does.
    """
    from dfsfuse.upkeep.fsck_run import Fsck

    connection = client.connection
    with Bar() as bar:
        checker = Fsck(
            connection.cluster,
            connection.store,
            connection.new_log,
            now_ns=time.time_ns,
            client=os.urandom(8),
            step=lambda what: bar.start(what.encode(), None),
        )
        checked = checker.run(repair=repair)
    names = connection.server_names
    if as_json:
        write_json(as_dictionary(checked, names))
    else:
        _write(checked, names, repair=repair)
    if not checked.is_sound:
        raise AlreadyReported(exit_codes.FOUND)


def _write(checked: Checked, names: dict[int, str], *, repair: bool) -> None:
    for finding in checked.mended:
        write_line(f"{_sentence(finding)}: put right")
    hint = ": --repair puts this right" if checked.may_repair and not repair else ""
    for finding in checked.findings:
        write_line(_sentence(finding) + (hint if finding.mends else ""))
    for key, servers in sorted(checked.comparison.differing.items()):
        write_line(difference(key, servers, checked.comparison.compared, names))
    if checked.comparison.undecided:
        write_line(f"{checked.comparison.undecided} keys change too often to be compared between the servers")
    for lack in checked.pieces.lacks[:LACKS_SHOWN] if checked.healed is None else ():
        path = printable(checked.path(lack.placed.ino))
        other = ", and no other server that answers has it" if lack.is_last else ""
        write_line(f"{path}: P{lack.number} of a segment is missing on {names[lack.server]}{other}")
    files, folders = counted(checked.files, "file"), counted(checked.folders, "folder")
    write_line(f"{files} and {folders}, at slot {checked.slot}.")
    for sentence in summary(checked):
        write_line(sentence)
    for name, why in unheard(checked, names).items():
        complain(f"{name} was not checked: {why}")
    if repair and not checked.may_repair:
        complain("nothing was changed: while the servers' maps differ nobody can tell what is right")
    if not checked.is_newest:
        complain("too few servers answer to know the newest state")
    if checked.swept.hindrance:
        complain(f"pieces that nobody refers to cannot be told: {checked.swept.hindrance}")
    if checked.is_sound:
        write_line("All is as it should be.")


def difference(key: bytes, servers: frozenset[int], compared: frozenset[int], names: dict[int, str]) -> str:
    """What is to be said of a key at which the maps of `servers` differ from most, and what to do. Only one server may
    be emptied, and only if three others say the same: else what it alone knows may be what is right."""
    who = " and ".join(names[server] for server in sorted(servers))
    if len(servers) == 1 and len(compared - servers) >= QUORUM:
        return (
            f"the map of {who} differs from that of the three others at key {key.hex()}: stop {who}, move its folder "
            "of this user away, start it again; the others bring back what was in it"
        )
    return (
        f"the map of {who} differs from the others at key {key.hex()}, and no three servers say the same: empty none "
        "of them; look again when all four answer"
    )


def summary(checked: Checked) -> list[str]:
    """What is to be said of pieces, in sentences."""
    said = []
    if checked.healed is not None:
        copies = sum(checked.healed.copied.values())
        said.append(f"{copies} copies of pieces were made, {checked.healed.went_home} segments went home.")
        if checked.healed.still_lacking:
            said.append(f"{checked.healed.still_lacking} segments still lack copies: 'dfc heal' says why.")
    elif checked.pieces.lacks:
        said.append(f"{len(checked.pieces.lacks)} copies of pieces are missing: 'dfc heal' makes them.")
    if checked.pieces.away and checked.healed is None:
        said.append(
            f"{checked.pieces.away} segments are not at home yet, and are whole: mounts and 'dfc heal' move them."
        )
    swept = checked.swept
    if swept.dropped:
        said.append(f"{swept.dropped} pieces that nobody refers to will be deleted.")
    if swept.orphans > swept.dropped:
        size = human_size(swept.orphan_bytes)
        said.append(
            f"{swept.orphans - swept.dropped} pieces that nobody refers to take room ({size})"
            + (": --repair." if checked.may_repair else ".")
        )
    if sentence := _of_the_dead(checked):
        said.append(sentence)
    return said


def _of_the_dead(checked: Checked) -> str:
    remains = checked.remains
    if not remains.sessions and not remains.locks:
        return ""
    said = f"{counted(len(remains.sessions), 'session')} and {counted(remains.locks, 'lock')} of mounts that died"
    if checked.are_buried:
        return f"{said} were ended."
    by_hand = "--repair ends them, and so do mounts" if checked.may_repair else "mounts end them"
    return f"{said} are left: {by_hand}, within a day."


def _sentence(finding: Finding) -> str:
    return f"{printable(finding.path)}: {printable(finding.text)}"


def unheard(checked: Checked, names: dict[int, str]) -> dict[str, str]:
    """Which servers were not checked, by name, and why: without the name and address that some reasons begin with."""
    found = {**checked.swept.unheard, **checked.pieces.unheard, **checked.comparison.absent}
    return {
        names[server]: re.sub(rf"^{re.escape(names[server])} \([^)]*\):? ", "", why)
        for server, why in sorted(found.items())
    }


def as_dictionary(checked: Checked, names: dict[int, str]) -> dict[str, object]:
    """The outcome for JSON."""

    def finding(one: Finding) -> dict[str, object]:
        facts = {"kind": one.kind, "text": one.text, "key": one.key.hex(), "repairable": one.mends}
        return {**json_text("path", one.path), **facts}

    healed = checked.healed
    return {
        "sound": checked.is_sound,
        "slot": checked.slot,
        "files": checked.files,
        "folders": checked.folders,
        "findings": [finding(one) for one in checked.findings],
        "repaired": [finding(one) for one in checked.mended],
        "differing_keys": {
            key.hex(): [names[server] for server in sorted(servers)]
            for key, servers in sorted(checked.comparison.differing.items())
        },
        "missing_copies": [
            {
                **json_text("path", checked.path(lack.placed.ino)),
                "segment": lack.placed.segment.id.hex(),
                "piece": lack.number,
                "server": names[lack.server],
                "has_other_copy": not lack.is_last,
            }
            for lack in checked.pieces.lacks
        ],
        "segments": checked.pieces.segments,
        "segments_away": checked.pieces.away,
        "copies_made": None if healed is None else sum(healed.copied.values()),
        "still_lacking": None if healed is None else healed.still_lacking,
        "orphans": checked.swept.orphans,
        "orphan_bytes": checked.swept.orphan_bytes,
        "orphans_dropped": checked.swept.dropped,
        "orphans_unknown": checked.swept.hindrance,
        "dead_sessions": len(checked.remains.sessions),
        "dead_locks": checked.remains.locks,
        "dead_ended": checked.are_buried,
        "not_checked": unheard(checked, names),
    }
