"""`dfc verify`: checks every copy of every piece without relying on the servers; or compares a tree with a local
one."""

from __future__ import annotations

import stat
import time
from collections.abc import Iterator
from pathlib import Path

import click

from dfs_server.protocol.limits import COPIES
from dfsfuse.cli import exit_codes
from dfsfuse.cli.dfc import remote_paths
from dfsfuse.cli.dfc.client import Client, Connection
from dfsfuse.cli.dfc.progress import Bar
from dfsfuse.cli.dfc.remote import Remote
from dfsfuse.cli.output import complain, human_size, json_text, printable, write_json, write_line, write_lines
from dfsfuse.cli.reports import AlreadyReported, Tally
from dfsfuse.errors import DfsError, IncompleteError
from dfsfuse.namespace.ops import bad_copies
from dfsfuse.upkeep.verify import BadCopy, Verified
from dfsfuse.vfs.attributes import Attributes

NAMED_MAX = 8
BLOCK_BYTES = 512


@click.command("verify", short_help="Check every copy of every piece, or compare with a local folder.")
@click.option("--against", metavar="DIR", help="Compare with the local folder (or file) DIR instead.")
@click.option("--heal", "heal_bad", is_flag=True, help="Recreate bad or missing copies from the good one.")
@click.option("-l", "--long", "is_long", is_flag=True, help="Print a line for each copy that is bad or missing.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
@click.argument("path", default="/")
@click.pass_obj
def verify(client: Client, path: str, against: str | None, heal_bad: bool, is_long: bool, as_json: bool) -> None:
    """Fetch both copies of all data of PATH and everything below it (default: all files), and check them against what
    was put. Say which servers have bad copies or lack some, which files are affected, and what to do; with --heal, do
    it. The results are recorded: 'dfc status' counts them, and 'dfc heal' and mounts repair them.

    With --against, compare names, types, sizes, contents, permissions and the targets of links with a local folder, and
    report the differences.

    The exit code is 0 if everything is as it should be (with --heal: is now), 14 if not, and 3 if some piece has no
    good copy left.
    """
    where = remote_paths.normal(path)
    found = client.remote.existing(where, follow=False)
    if against is not None and heal_bad:
        raise click.UsageError("--heal recreates copies of pieces: it cannot be used with --against")
    if against is not None:
        _compare(client, where, found, client.local_path(against), as_json)
    else:
        _verify(client, where, found, heal_bad, is_long, as_json)


# ------------------------------------------------------------------ all copies


def _verify(client: Client, path: bytes, found: Attributes, heal_bad: bool, is_long: bool, as_json: bool) -> None:
    from dfsfuse.upkeep.map_reader import MapReader
    from dfsfuse.upkeep.verify import Verifier

    paths: dict[int, bytes] = {}
    total = 0
    for at, attributes in _files(client.remote, path, found):
        if attributes.ino not in paths:
            paths[attributes.ino] = at
            total += COPIES * BLOCK_BYTES * attributes.blocks
    connection = client.connection
    with Bar() as bar:
        bar.start(path, total)
        verifier = Verifier(connection.cluster, MapReader(connection.new_log()), on_progress=bar.advance)
        verified = verifier.verify(paths, everything=path == b"/")
    names = connection.server_names
    bad = sorted(verified.bad, key=lambda copy: (copy.path, copy.segment, copy.number, copy.server))
    made_anew = _heal(connection, bad) if heal_bad else 0
    _remember(connection, verified, healed=heal_bad)
    if as_json:
        write_json(
            {
                "files": verified.files,
                "segments": verified.segments,
                "good_copies": verified.copies,
                "verified_bytes": verified.verified_bytes,
                "bad_copies": [
                    {
                        **json_text("path", copy.path),
                        "segment": copy.segment.hex(),
                        "piece": copy.number,
                        "server": names[copy.server],
                        "missing": copy.is_missing,
                        "has_good_copy": copy.has_twin,
                        "problem": copy.text,
                    }
                    for copy in bad
                ],
                "unreadable": [json_text("path", one) for one in verified.unreadable],
                "not_verified": {names[server]: text for server, text in sorted(verified.unreachable.items())},
                "unverified_copies": verified.unverified,
                "made_anew": made_anew,
            }
        )
    else:
        write_lines(each_copy(bad) if is_long else summed_up(bad, names))
        for one in verified.unreadable:
            write_line(f"{printable(one)}: a record of its data cannot be read: 'dfc fsck' says more")
        good = f"{_several(verified.copies, 'copy', 'copies')} of their parts are good"
        write_line(f"{_several(verified.files, 'file')}: {good} ({human_size(verified.verified_bytes)}).")
        if made_anew:
            write_line(f"{_several(made_anew, 'copy', 'copies')} recreated.")
    for server, text in sorted(verified.unreachable.items()):
        complain(f"{names[server]} was not verified: {text}")
    if verified.lost:
        complain(
            f"{_several(len(verified.lost), 'file')} cannot be assembled from the servers that answer: start those "
            "that are down, or else bring back an old disk of a server, or restore a backup"
        )
        raise AlreadyReported(IncompleteError.exit_code)
    still_bad = len(bad) - made_anew
    if still_bad:
        complain(f"{_several(still_bad, 'copy', 'copies')} bad or missing: 'dfc verify --heal' recreates them")
    if still_bad or verified.unreachable or verified.unreadable:
        raise AlreadyReported(exit_codes.FOUND)


def each_copy(bad: list[BadCopy]) -> list[str]:
    """A line for each bad copy."""
    lines = []
    for copy in bad:
        twin = "" if copy.has_twin else "; no other server that answers has a good copy"
        lines.append(f"{printable(copy.path)}: P{copy.number}: {printable(copy.text)}{twin}")
    return lines


def summed_up(bad: list[BadCopy], names: dict[int, str]) -> list[str]:
    """A line for each server and kind of fault, and one for the files that have no good copy left."""
    lines = []
    for server, is_missing in sorted({(copy.server, copy.is_missing) for copy in bad}):
        these = [copy for copy in bad if (copy.server, copy.is_missing) == (server, is_missing)]
        copies = _several(len(these), "copy is", "copies are")
        fault = "missing" if is_missing else "bad"
        lines.append(f"{names[server]}: {copies} {fault}, of {_named([copy.path for copy in these])}")
    if lost := [copy.path for copy in bad if not copy.has_twin]:
        lines.append(f"No server that answers has a good copy of some data of {_named(lost)}")
    return lines


def _named(paths: list[bytes]) -> str:
    """The number of files, with the names of the first few."""
    different = sorted(set(paths))
    more = f" and {len(different) - NAMED_MAX:,} more" if len(different) > NAMED_MAX else ""
    return f"{_several(len(different), 'file')}: {', '.join(map(printable, different[:NAMED_MAX]))}{more}"


def _remember(connection: Connection, verified: Verified, *, healed: bool) -> None:
    """Record the results in the namespace, for `dfc status` and for healing. Healing (`healed`) updates the records of
    the copies that it made; only copies with no good twin to recreate them from remain."""
    bad = verified.to_note
    if healed:
        lost = {(copy.segment, copy.number, copy.server) for copy in verified.bad if not copy.has_twin}
        bad = [place for place in bad if place in lost]
    try:
        bad_copies.take_back(connection.store, verified.redeemed)
        bad_copies.note(connection.store, bad, time.time_ns())
    except (DfsError, OSError) as error:
        complain(f"the results cannot be recorded for 'dfc status' and 'dfc heal': {error}")


def _heal(connection: Connection, bad: list[BadCopy]) -> int:
    """Recreate these copies from their twins, including copies that a server believes to be good. Returns how many."""
    from dfsfuse.upkeep.heal.healing import Healer
    from dfsfuse.upkeep.map_reader import MapReader

    healer = Healer(connection.cluster, MapReader(connection.new_log()), connection.store)
    report = healer.restore([(copy.whole, copy.number, copy.server) for copy in bad if copy.has_twin])
    for reason in report.reasons:
        complain(reason)
    return report.copied.total()


def _files(remote: Remote, path: bytes, found: Attributes) -> Iterator[tuple[bytes, Attributes]]:
    """Yield all files at and below a path."""
    todo = [(path, found)]
    while todo:
        path, found = todo.pop()
        if stat.S_ISREG(found.mode):
            yield path, found
        elif stat.S_ISDIR(found.mode):
            todo += [(remote_paths.join(path, name), below) for name, below in remote.entries(found.ino, path)]


# ------------------------------------------------------------------ against a local folder


def _compare(client: Client, path: bytes, found: Attributes, local: Path, as_json: bool) -> None:
    from dfsfuse.cli.dfc.comparing import differences

    tally = Tally()
    seen: list[tuple[bytes, str]] = []
    with Bar() as bar, tally.attempt():
        last = b""

        def on_progress(name: bytes, size: int) -> None:
            nonlocal last
            if name != last:
                bar.start(name, None)
                last = name
            bar.advance(size)

        for where, what in differences(client.remote, path, found, local, on_progress):
            seen.append((where, what))
            if not as_json:
                write_line(f"{printable(where)}: {what}")
    if as_json:
        write_json([{**json_text("path", where), "difference": what} for where, what in seen])
    tally.settle()
    if seen:
        raise AlreadyReported(exit_codes.FOUND)
    if not as_json:
        write_line(f"{printable(path)} and {printable(local)} are the same.")


def _several(count: int, one: str, many: str = "") -> str:
    return f"{count} {one if count == 1 else many or one + 's'}"
