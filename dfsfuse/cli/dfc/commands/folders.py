"""`dfc mkdir`, `dfc rm`, `dfc mv`: commands that only change names."""

from __future__ import annotations

import stat
import sys

import click

from dfsfuse.cli.dfc import remote_paths
from dfsfuse.cli.dfc.client import Client
from dfsfuse.cli.dfc.remote import Remote
from dfsfuse.cli.output import counted, printable
from dfsfuse.cli.reports import CommandError, Tally


@click.command("mkdir", short_help="Create folders.")
@click.option(
    "-p", "--parents", is_flag=True, help="Also create the folders above it; an existing folder is not an error."
)
@click.argument("paths", metavar="PATH...", nargs=-1, required=True)
@click.pass_obj
def mkdir(client: Client, paths: tuple[str, ...], parents: bool) -> None:
    """Create the folder PATH."""
    remote, tally = client.remote, Tally()
    for text in paths:
        with tally.attempt():
            path = remote_paths.normal(text)
            if parents:
                remote.ensure_folders(path)
            else:
                remote.make_folder(path)
    tally.settle()


@click.command("rm", short_help="Remove files and folders.")
@click.option("-r", "--recursive", is_flag=True, help="Remove folders and everything below them.")
@click.option("-f", "--force", is_flag=True, help="Never ask; missing files are not an error.")
@click.option("--all", "everything", is_flag=True, help="With -r: the root may be emptied. Asks first.")
@click.argument("paths", metavar="PATH...", nargs=-1, required=True)
@click.pass_obj
def rm(client: Client, paths: tuple[str, ...], *, recursive: bool, force: bool, everything: bool) -> None:
    """Remove the file PATH. This cannot be undone.

    A symbolic link itself is removed, not its target.

    The root, however it is written (/, ., d/..), is emptied only with -r and --all, and only after a question on the
    terminal; without a terminal, -f must be given too.
    """
    remote, tally = client.remote, Tally()
    for text in paths:
        with tally.attempt():
            path = remote_paths.normal(text)
            if path == b"/":
                _guard_root(remote, text, recursive=recursive, force=force, everything=everything)
            elif remote_paths.ends_in_dots(text):
                raise CommandError(f"{printable(text)} is refused, because it ends in . or ..: name {printable(path)}")
            try:
                found = remote.existing(path, follow=False)
            except (FileNotFoundError, NotADirectoryError):
                if force:
                    continue
                raise
            if not stat.S_ISDIR(found.mode):
                remote.remove(path)
            elif recursive:
                _remove_tree(remote, path)
            else:
                raise CommandError(f"{printable(path)} is a folder: use -r")
    tally.settle()


def _guard_root(remote: Remote, text: str, *, recursive: bool, force: bool, everything: bool) -> None:
    """Raise CommandError unless the user wants to remove everything, and has confirmed or waived the question."""
    shown = printable(text)
    meaning = "" if text == "/" else ", which is the root folder /"
    if not recursive:
        raise CommandError(f"{shown} is a folder{meaning}: use -r")
    if not everything:
        raise CommandError(f"{shown} would remove everything{meaning}: nothing was removed (use --all if you mean it)")
    if force:
        return
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise CommandError(
            f"{shown} would remove everything{meaning}: there is no terminal to ask on, and nothing was removed "
            "(use -f too if you mean it)"
        )
    names = counted(len(remote.entries(remote.existing(b"/").ino, b"/")), "name")
    if not click.confirm(f"Remove everything on the servers ({names} in the root folder)?", err=True):
        raise CommandError("nothing was removed from the root folder")


def _remove_tree(remote: Remote, path: bytes) -> None:
    """Remove a folder's contents, then the folder itself; the root is emptied but stays."""
    todo = [path]
    folders: list[bytes] = []
    while todo:
        folder = todo.pop()
        folders.append(folder)
        for name, found in remote.entries(remote.existing(folder, follow=False).ino, folder):
            below = remote_paths.join(folder, name)
            if stat.S_ISDIR(found.mode):
                todo.append(below)
            else:
                remote.remove(below)
    for folder in reversed(folders):
        if folder != b"/":
            remote.remove(folder)


@click.command("mv", short_help="Rename or move a file or folder.")
@click.argument("source")
@click.argument("target")
@click.pass_obj
def mv(client: Client, source: str, target: str) -> None:
    """Give the file or folder SOURCE the name TARGET, in one step.

    If TARGET is an existing folder or ends in a slash, SOURCE goes into it. A file at TARGET is replaced.
    """
    origin, goal = remote_paths.normal(source), remote_paths.normal(target)
    place = client.remote.find(goal)
    if place.is_folder():
        goal = remote_paths.join(goal, remote_paths.base_name(origin))
    elif remote_paths.names_a_folder(target) and not stat.S_ISDIR(client.remote.existing(origin, follow=False).mode):
        raise CommandError(f"{printable(goal)} is not an existing folder")
    if goal != origin and remote_paths.is_inside(goal, origin):
        raise CommandError(f"{printable(origin)} cannot be moved into itself ({printable(goal)})")
    client.remote.move(origin, goal)
