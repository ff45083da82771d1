"""`dfc stat`: everything about one file or folder."""

from __future__ import annotations

import stat

import click

from dfsfuse.cli.dfc import remote_paths
from dfsfuse.cli.dfc.client import Client
from dfsfuse.cli.dfc.commands.listing import KINDS, Entry, as_dictionary, completed
from dfsfuse.cli.dfc.layouts import layouts_of, pieces_text
from dfsfuse.cli.output import human_size, iso_time, printable, table, write_json, write_lines


@click.command("stat", short_help="Show everything about a file or folder.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
@click.argument("path")
@click.pass_obj
def stat_(client: Client, path: str, as_json: bool) -> None:
    """Show everything about the file or folder PATH: size, times, mode, health, and where its pieces are.

    A symbolic link itself is shown, not its target.
    """
    normal = remote_paths.normal(path)
    remote = client.remote
    found = remote.existing(normal, follow=False)
    bare = Entry(remote_paths.base_name(normal) or b"/", normal, found)
    (entry,) = completed(remote, [bare], everything=True)
    names = client.connection.server_names
    if as_json:
        write_json(as_dictionary(entry, names))
        return
    size = f"{found.size} byte{'s' if found.size != 1 else ''}"
    if found.size >= 1024:
        size += f" ({human_size(found.size)})"
    rows = [
        ("path", printable(normal)),
        ("type", KINDS.get(stat.S_IFMT(found.mode), "special")),
        ("size", size),
        ("mode", f"{stat.filemode(found.mode)} ({stat.S_IMODE(found.mode):04o})"),
        ("owner", f"uid {found.uid}, gid {found.gid}"),
        ("links", str(found.nlink)),
        ("inode", str(found.ino)),
        ("modified", iso_time(found.mtime_ns) or "?"),
        ("accessed", iso_time(found.atime_ns) or "?"),
        ("changed", iso_time(found.ctime_ns) or "?"),
    ]
    if entry.link_target is not None:
        rows.append(("points to", printable(entry.link_target)))
    if entry.health is not None:
        rows.append(("health", entry.health.state))
        total = len(entry.health.segments)
        for layout in layouts_of(entry.health.segments):
            held = ", ".join(f"{name}: {pieces_text(layout.pieces.get(server, ()))}" for server, name in names.items())
            rows.append(("pieces", held + (f"  ({layout.segments} of {total} parts)" if total > 1 else "")))
    write_lines(table(rows))
