"""`dfc list`: names, and on request sizes, times, health, and which server holds which pieces."""

from __future__ import annotations

import stat
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice

import click

from dfsfuse.cli.dfc import remote_paths
from dfsfuse.cli.dfc.client import Client
from dfsfuse.cli.dfc.layouts import layouts_of, pieces_text
from dfsfuse.cli.dfc.remote import Remote
from dfsfuse.cli.output import (
    human_size,
    iso_time,
    json_text,
    local_time,
    printable,
    table,
    write_json,
    write_lines,
)
from dfsfuse.cli.reports import Tally
from dfsfuse.vfs.attributes import Attributes
from dfsfuse.vfs.health.health import Health

INCOMPLETE_MARK = " [incomplete]"
KINDS = {stat.S_IFREG: "file", stat.S_IFDIR: "folder", stat.S_IFLNK: "link"}


@dataclass(frozen=True)
class Entry:
    """One line of a listing: the displayed name, the path, and the attributes."""

    shown: bytes
    path: bytes
    found: Attributes
    is_incomplete: bool = False
    health: Health | None = None
    link_target: bytes | None = None

    def name(self, *, slash: bool = False) -> str:
        """The name for people, marked if the file is incomplete. `slash`: end a folder's name with a slash."""
        mark = INCOMPLETE_MARK if self.is_incomplete else ""
        return printable(self.shown) + ("/" if slash and stat.S_ISDIR(self.found.mode) else "") + mark


@dataclass(frozen=True)
class Listing:
    """The listing for one PATH: a folder's entries, or a single file, which needs no heading."""

    heading: str
    entries: list[Entry]


@click.command("list", short_help="List names; with options also sizes, health, and where the pieces are.")
@click.option("-r", "--recursive", is_flag=True, help="List everything below, as relative paths.")
@click.option("-l", "--long", "long_", is_flag=True, help="Also show mode, size, time of modification and health.")
@click.option("-p", "--slash", is_flag=True, help="Show folders with a slash at the end, as on a terminal.")
@click.option("--where", is_flag=True, help="Show which server holds which pieces of each file.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON, for programs: exact sizes and times.")
@click.argument("paths", metavar="[PATH]...", nargs=-1)
@click.pass_obj
def list_(
    client: Client,
    paths: tuple[str, ...],
    *,
    recursive: bool,
    long_: bool,
    slash: bool,
    where: bool,
    as_json: bool,
) -> None:
    """List the folder PATH (the root if it is not given), or the file PATH. Also called ls.

    With more than one PATH, files come first, and then each folder with a heading, as with ls.

    A file that cannot be assembled from the servers that answer now is marked [incomplete]. Health is complete (two
    copies of every piece are available), degraded (only one copy of some piece) or incomplete (no copy of some piece).

    On a terminal a folder's name ends in a slash. Names are shown as by ls -b: a line break in a name is \\n, an
    unprintable byte \\ooo, a backslash \\\\.

    --where has a column for each server. A long file consists of many segments, each with its own four pieces; segments
    whose pieces are on the same servers share a line. Folders and links have a line too.
    """
    remote, tally = client.remote, Tally()
    listings: list[Listing] = []
    for text in paths or ("/",):
        with tally.attempt():
            listings.append(_listing(remote, remote_paths.normal(text), recursive=recursive, tally=tally))
    found = [entry for listing in listings for entry in listing.entries]
    entries = completed(remote, found, everything=long_ or where or as_json)
    names = client.connection.server_names
    slash = slash or sys.stdout.isatty()

    def lines(entries: list[Entry]) -> Iterable[str]:
        if where:
            return _where_lines(entries, names, long_=long_, slash=slash)
        if long_:
            return _long_lines(entries, slash=slash)
        return (entry.name(slash=slash) for entry in entries)

    if as_json:
        write_json([as_dictionary(entry, names) for entry in entries])
    elif len(paths) <= 1:
        write_lines(lines(entries))
    else:
        rest = iter(entries)
        listings = [replace(listing, entries=list(islice(rest, len(listing.entries)))) for listing in listings]
        write_lines(_below_headings(listings, lines))
    tally.settle()


def _below_headings(listings: list[Listing], lines: Callable[[list[Entry]], Iterable[str]]) -> Iterator[str]:
    """Like the output of `ls` for several paths: the files, then each folder, separated by empty lines."""
    files = [entry for listing in listings if not listing.heading for entry in listing.entries]
    if files:
        yield from lines(files)
    is_first = not files
    for listing in listings:
        if listing.heading:
            yield from ([] if is_first else [""])
            yield f"{listing.heading}:"
            yield from lines(listing.entries)
            is_first = False


def _listing(remote: Remote, path: bytes, *, recursive: bool, tally: Tally) -> Listing:
    found = remote.existing(path)
    if not stat.S_ISDIR(found.mode):
        return Listing("", [Entry(remote_paths.base_name(path), path, found)])
    entries: list[Entry] = []
    todo = [(path, b"", found.ino)]
    while todo:
        folder, prefix, inode = todo.pop()
        with tally.attempt():
            below: list[tuple[bytes, bytes, int]] = []
            for name, attributes in remote.entries(inode, folder):
                entry = Entry(prefix + name, remote_paths.join(folder, name), attributes)
                entries.append(entry)
                if recursive and stat.S_ISDIR(attributes.mode):
                    below.append((entry.path, entry.shown + b"/", attributes.ino))
            todo += reversed(below)
    return Listing(printable(path), sorted(entries, key=lambda entry: entry.shown.split(b"/")))


def completed(remote: Remote, entries: list[Entry], *, everything: bool) -> list[Entry]:
    """The entries with what only the servers know: which are incomplete, and on request also health and link
    targets."""
    files = [entry.found.ino for entry in entries if stat.S_ISREG(entry.found.mode)]
    if not everything:
        incomplete = remote.incomplete(files)
        return [replace(entry, is_incomplete=entry.found.ino in incomplete) for entry in entries]
    known = remote.health(files)
    return [
        replace(
            entry,
            health=(health := known.get(entry.found.ino)),
            is_incomplete=health is not None and health.state == "incomplete",
            link_target=remote.link_target(entry.found.ino, entry.path) if stat.S_ISLNK(entry.found.mode) else None,
        )
        for entry in entries
    ]


def _facts(entry: Entry) -> list[str]:
    """Mode, size and time of modification."""
    size = human_size(entry.found.size) if stat.S_ISREG(entry.found.mode) else "-"
    return [stat.filemode(entry.found.mode), size, local_time(entry.found.mtime_ns)]


def _state_and_name(entry: Entry, *, slash: bool) -> list[str]:
    """The health, and the name with a link's target."""
    target = f" -> {printable(entry.link_target)}" if entry.link_target is not None else ""
    return [entry.health.state if entry.health else "-", entry.name(slash=slash) + target]


def _long_lines(entries: list[Entry], *, slash: bool) -> list[str]:
    return table([[*_facts(entry), *_state_and_name(entry, slash=slash)] for entry in entries], right=" r")


def _where_lines(entries: list[Entry], names: dict[int, str], *, long_: bool, slash: bool) -> list[str]:
    rows: list[list[str]] = []
    for entry in entries:
        facts = _facts(entry) if long_ else []
        layouts = layouts_of(entry.health.segments) if entry.health else []
        if not layouts:
            segments = "0" if entry.health else "-"
            rows.append([*facts, *("-" for _ in names), segments, *_state_and_name(entry, slash=slash)])
        for layout in layouts:
            cells = [pieces_text(layout.pieces.get(server, ())) for server in names]
            rows.append([*facts, *cells, str(layout.segments), *_state_and_name(entry, slash=slash)])
    header = [*(("MODE", "SIZE", "CHANGED") if long_ else ()), *names.values(), "SEGMENTS", "HEALTH", "NAME"]
    return table(rows, header=header, right=(" r " if long_ else "") + " " * len(names) + "r")


def as_dictionary(entry: Entry, names: dict[int, str]) -> dict[str, object]:
    """An entry for JSON."""
    found = entry.found
    facts: dict[str, object] = {
        **json_text("name", remote_paths.base_name(entry.path) or b"/"),
        **json_text("path", entry.path),
        "type": KINDS.get(stat.S_IFMT(found.mode), "special"),
        "size": found.size,
        "mode": f"{stat.S_IMODE(found.mode):04o}",
        "uid": found.uid,
        "gid": found.gid,
        "links": found.nlink,
        "inode": found.ino,
        "mtime": iso_time(found.mtime_ns),
        "mtime_ns": found.mtime_ns,
        "atime_ns": found.atime_ns,
        "ctime_ns": found.ctime_ns,
    }
    if entry.link_target is not None:
        facts |= json_text("target", entry.link_target)
    if entry.health is not None:
        facts["health"] = entry.health.state
        facts["where"] = [
            {
                "segments": layout.segments,
                "servers": {name: list(layout.pieces.get(server, ())) for server, name in names.items()},
            }
            for layout in layouts_of(entry.health.segments)
        ]
    return facts
