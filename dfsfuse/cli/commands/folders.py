"""`dfc mkdir`, `dfc rm`, `dfc mv`: what changes names only."""

from __future__ import annotations

import stat

import click

from dfsfuse.cli import remote_paths
from dfsfuse.cli.client import Client
from dfsfuse.cli.output import printable
from dfsfuse.cli.remote import Remote
from dfsfuse.cli.reports import CommandError, Tally


@click.command("mkdir", short_help="Make folders.")
@click.option("-p", "--parents", is_flag=True, help="Make the folders above it too; one that is there is no error.")
@click.argument("paths", metavar="PATH...", nargs=-1, required=True)
@click.pass_obj
def mkdir(client: Client, paths: tuple[str, ...], parents: bool) -> None:
    """Make the folder PATH."""
    tally = Tally()
    for text in paths:
        with tally.attempt():
            path = remote_paths.normal(text)
            if parents:
                client.remote.ensure_folders(path)
            else:
                client.remote.make_folder(path)
    tally.settle()


@click.command("rm", short_help="Remove files and folders.")
@click.option("-r", "--recursive", is_flag=True, help="Remove folders and all below them.")
@click.argument("paths", metavar="PATH...", nargs=-1, required=True)
@click.pass_obj
def rm(client: Client, paths: tuple[str, ...], recursive: bool) -> None:
    """Remove the file PATH. There is no way back.

    A symbolic link is removed itself, not what it points to.
    """
    tally = Tally()
    for text in paths:
        with tally.attempt():
            path = remote_paths.normal(text)
            folder = stat.S_ISDIR(client.remote.existing(path, follow=False).mode)
            if folder and not recursive:
                raise CommandError(f"{printable(path)} is a folder: use -r")
            if folder:
                _remove_tree(client.remote, path)
            else:
                client.remote.remove(path)
    tally.settle()


def _remove_tree(remote: Remote, path: bytes) -> None:
    """A folder's contents, then the folder itself; the root is emptied and stays."""
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
