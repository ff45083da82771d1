"""`dfc fsck`: checks whether the whole namespace is as it should be."""

from __future__ import annotations

import os
import re
import time
from typing import TYPE_CHECKING

import click

from dfs_server.protocol.limits import QUORUM
from dfsfuse.cli import exit_codes
from dfsfuse.cli.dfc.client import Client
from dfsfuse.cli.dfc.progress import Bar
from dfsfuse.cli.output import complain, counted, human_size, json_text, printable, write_json, write_line, write_lines
from dfsfuse.cli.reports import AlreadyReported
from dfsfuse.upkeep.health.servers import listed

if TYPE_CHECKING:
    from dfsfuse.upkeep.fsck.pieces import Lack
    from dfsfuse.upkeep.fsck.records import Finding
    from dfsfuse.upkeep.fsck.run import Checked

LACKS_SHOWN = 20


@click.command("fsck", short_help="Check the whole namespace; --repair repairs what it can.")
@click.option("--repair", is_flag=True, help="Repair everything that can be repaired without losing anything.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
@click.pass_obj
def fsck(client: Client, repair: bool, as_json: bool) -> None:
    """Check the whole namespace: that every name leads to a file and every file has its names, that sizes and counts
    are right, that all four servers have the same map, that all pieces are on their homes, and that there are no pieces
    that nothing refers to. Files can be used at the same time. If a mount died while it held locks, this takes as long
    as a mount may be silent, usually 20 s.

    With --repair, repair everything that can be repaired without losing anything. Files and folders without a name get
    one in /lost+found. Anything that fsck does not understand it reports, and never touches.

    The exit code is 0 if everything is as it should be (now), and 14 if not; 7 if something needs repair and fewer than
    three servers answer, 6 if none does.
    """
    from dfsfuse.upkeep.fsck.run import Fsck

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
        write_line(f"{_sentence(finding)}: repaired")
    hint = ": --repair fixes this" if checked.may_repair and not repair else ""
    for finding in checked.findings:
        write_line(_sentence(finding) + (hint if finding.mends else ""))
    for key, servers in sorted(checked.comparison.differing.items()):
        write_line(difference(key, servers, checked.comparison.compared, names))
    if checked.comparison.undecided:
        write_line(f"{checked.comparison.undecided} keys change too often to be compared between the servers")
    if checked.healed is None:
        write_lines(missing(checked, names))
    files, folders = counted(checked.files, "file"), counted(checked.folders, "folder")
    write_line(f"{files} and {folders}.")
    for sentence in summary(checked):
        write_line(sentence)
    for name, why in unreachable(checked, names).items():
        complain(f"{name} was not checked: {why}")
    if repair and not checked.may_repair:
        complain("nothing was changed: while the servers' maps differ, it is not known which one is right")
    if not checked.is_newest:
        complain("too few servers answer to know the newest state")
    if checked.swept.hindrance:
        complain(f"data that no file uses could not be determined: {checked.swept.hindrance}")
    if checked.is_sound:
        write_line("Everything is as it should be.")


def missing(checked: Checked, names: dict[int, str]) -> list[str]:
    """A line for each file that lacks copies: on which servers, and whether there is another copy. Only the first few
    are listed if there are many."""
    of: dict[bytes, list[Lack]] = {}
    for lack in checked.pieces.lacks:
        of.setdefault(checked.path(lack.placed.ino), []).append(lack)
    lines = []
    for path, lacks in sorted(of.items())[:LACKS_SHOWN]:
        servers = listed(sorted({names[lack.server] for lack in lacks}))
        lost = "; some of it is on no server that answers" if any(lack.is_last for lack in lacks) else ""
        lines.append(f"{printable(path)}: copies of its data are missing on {servers}{lost}")
    if len(of) > LACKS_SHOWN:
        lines.append(f"Copies of data of {len(of) - LACKS_SHOWN:,} more files are missing: --json names all of them.")
    return lines


def several(count: int) -> str:
    """A number of copies, in words."""
    return "1 copy" if count == 1 else f"{count:,} copies"


def difference(key: bytes, servers: frozenset[int], compared: frozenset[int], names: dict[int, str]) -> str:
    """A sentence about a key at which the maps of `servers` differ from the majority, and what to do. Only one server
    may be emptied, and only if three others agree: otherwise the only correct version might be lost."""
    who = " and ".join(names[server] for server in sorted(servers))
    if len(servers) == 1 and len(compared - servers) >= QUORUM:
        return (
            f"the map of {who} differs from that of the three others at key {key.hex()}: stop {who}, move its folder "
            "of this user away, start it again; it is rebuilt from the others"
        )
    return (
        f"the map of {who} differs from the others at key {key.hex()}, and no three servers agree: do not empty any "
        "of them; check again when all four answer"
    )


def summary(checked: Checked) -> list[str]:
    """Sentences about the data."""
    said = []
    if checked.healed is not None:
        copies = sum(checked.healed.copied.values())
        home = counted(checked.healed.went_home, "part")
        said.append(f"{several(copies)} made, {home} of files moved to the proper servers.")
        if checked.healed.still_lacking:
            lacking = counted(checked.healed.still_files_lacking.count, "file")
            said.append(f"Copies of some data of {lacking} are still missing: 'dfc heal' says why.")
    elif checked.pieces.lacks:
        them = "1 copy of data is missing: 'dfc heal' makes it."
        if len(checked.pieces.lacks) > 1:
            them = f"{len(checked.pieces.lacks):,} copies of data are missing: 'dfc heal' makes them."
        said.append(them)
    if checked.pieces.away and checked.healed is None:
        parts = "1 part of a file is" if checked.pieces.away == 1 else f"{checked.pieces.away:,} parts of files are"
        said.append(f"{parts} not where they belong yet, with both copies: mounts and 'dfc heal' move them.")
    swept = checked.swept
    if swept.dropped:
        said.append(f"{several(swept.dropped)} of data that no file uses will be deleted.")
    if swept.orphans > swept.dropped:
        size = human_size(swept.orphan_bytes)
        said.append(
            f"{several(swept.orphans - swept.dropped)} of data that no file uses take room ({size})"
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
    if checked.are_ended:
        return f"{said} were removed."
    by_hand = "--repair removes them, and so do mounts" if checked.may_repair else "mounts remove them"
    return f"{said} are left: {by_hand}, within a day."


def _sentence(finding: Finding) -> str:
    return f"{printable(finding.path)}: {printable(finding.text)}"


def unreachable(checked: Checked, names: dict[int, str]) -> dict[str, str]:
    """The servers that were not checked, by name, and why. The name and address that some reasons begin with are
    removed."""
    found = {**checked.swept.unreachable, **checked.pieces.unreachable, **checked.comparison.absent}
    return {names[server]: _without_name(names[server], why) for server, why in sorted(found.items())}


def _without_name(name: str, why: str) -> str:
    reason = re.sub(rf"^{re.escape(name)} \([^)]*\):? ", "", why)
    return f"it {reason}" if reason.startswith("does not ") else reason


def as_dictionary(checked: Checked, names: dict[int, str]) -> dict[str, object]:
    """The result for JSON."""

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
        "dead_ended": checked.are_ended,
        "not_checked": unreachable(checked, names),
    }
