"""`dfc get`: gets a file or folder from the servers."""

from __future__ import annotations

import logging
import os
import shlex
import stat
from functools import partial

import click

from dfsfuse.cli.dfc import getting, remote_paths
from dfsfuse.cli.dfc.client import Client
from dfsfuse.cli.dfc.own_mounts import OwnMounts
from dfsfuse.cli.dfc.progress import Bar
from dfsfuse.cli.output import complain, printable, write_line
from dfsfuse.cli.reports import AlreadyReported, CommandError
from dfsfuse.errors import IncompleteError

INCOMPLETE = "File is incomplete"

_log = logging.getLogger(__name__)


@click.command("get", short_help="Get a file or folder from the servers.")
@click.option("-r", "--recursive", is_flag=True, help="Get a folder and everything below it.")
@click.argument("remote")
@click.argument("local", required=False)
@click.pass_obj
def get(client: Client, remote: str, local: str | None, recursive: bool) -> None:
    """Get the file REMOTE from the servers into the local file LOCAL.

    LOCAL is REMOTE's base name in the current folder if it is not given. If LOCAL is an existing folder, the base name
    is appended. An existing file is replaced. Every piece is checked against what was put; LOCAL appears complete or
    not at all. Mode and times are kept.

    If too few pieces are available, get prints "File is incomplete", exits with 3 and leaves nothing behind.

    LOCAL may be - for standard output; data written there before an error cannot be taken back.
    """
    path = remote_paths.normal(remote)
    found = client.remote.existing(path)
    if stat.S_ISDIR(found.mode) and not recursive:
        raise CommandError(f"{printable(path)} is a folder: use -r")
    if remote_paths.names_a_folder(remote) and not stat.S_ISDIR(found.mode):
        raise CommandError(f"{printable(remote)} is not a folder")
    with Bar() as bar:
        try:
            if local == "-":
                getting.get_stream(client.remote, path, found, bar)
                return
            target = getting.target_of(
                path,
                None if local is None else client.local_path(local),
                folder_meant=local is not None and remote_paths.names_a_folder(local),
                contents_meant=remote_paths.ends_in_dots(remote),
            )
            if stat.S_ISDIR(found.mode):
                getting.get_tree(client.remote, path, found, target, bar, incomplete=partial(_say_incomplete, client))
            else:
                getting.get_file(client.remote, path, found, target, OwnMounts(client.remote), bar)
        except IncompleteError as error:
            if local == "-":  # the file's bytes went to standard output
                complain(INCOMPLETE)
                complain(_why_incomplete(client, path, error))
            else:
                _say_incomplete(client, path, error)
            raise AlreadyReported(error.exit_code) from error


def _say_incomplete(client: Client, path: bytes, error: IncompleteError) -> None:
    write_line(INCOMPLETE)
    complain(_why_incomplete(client, path, error))


def _why_incomplete(client: Client, path: bytes, error: IncompleteError) -> str:
    """Which servers are missing, and what to do. The missing pieces are only logged (`--debug`)."""
    _log.info("%s: %s", printable(path), error)
    away = [name for id, name in client.connection.server_names.items() if id in error.away]
    match away:
        case []:
            typed = shlex.quote(os.fsdecode(path))
            return f"{printable(path)}: no server has a good copy of some of its data: `dfc verify {typed}` says more"
        case [one]:
            where = f"{one} only, which does not answer: get it when it is back"
        case _:
            names = f"{', '.join(away[:-1])} and {away[-1]}"
            where = f"{names} only, which do not answer: get it when one of them is back"
    return f"{printable(path)}: some of its data is on {where}"
