"""`dfc put`: puts a local file or folder on the servers."""

from __future__ import annotations

import stat
import sys

import click

from dfsfuse.cli.dfc import local_files, putting, remote_paths
from dfsfuse.cli.dfc.client import Client
from dfsfuse.cli.dfc.local_files import Facts
from dfsfuse.cli.dfc.own_mounts import OwnMounts
from dfsfuse.cli.dfc.progress import Bar
from dfsfuse.cli.output import printable
from dfsfuse.cli.reports import CommandError, local_errors
from dfsfuse.vfs import file_clock


@click.command("put", short_help="Put a local file or folder on the servers.")
@click.option("-r", "--recursive", is_flag=True, help="Put a folder and everything below it.")
@click.argument("local")
@click.argument("remote", required=False)
@click.pass_obj
def put(client: Client, local: str, remote: str | None, recursive: bool) -> None:
    """Put the file LOCAL on the servers, under the path REMOTE.

    REMOTE is LOCAL's base name in the root folder if it is not given. If REMOTE is an existing folder or ends in a
    slash, the base name is appended. An existing file is replaced, as cp does, but as a whole and in one step. Mode and
    times are kept. When put returns, every byte is on two servers' disks.

    LOCAL may be - for standard input; then REMOTE must be given.
    """
    if local == "-":
        _put_standard_input(client, remote, recursive=recursive)
        return
    path = client.local_path(local)
    with local_errors(path):
        kind = path.stat().st_mode
    local_files.refuse_special(path, kind)
    if remote_paths.names_a_folder(local) and not stat.S_ISDIR(kind):
        raise CommandError(f"local {printable(local)} is not a folder")
    if stat.S_ISDIR(kind) and not recursive:
        raise CommandError(f"local {printable(path)} is a folder: use -r")
    target = putting.target_of(client.remote, path, remote, contents_meant=remote_paths.ends_in_dots(local))
    with Bar() as bar:
        if stat.S_ISDIR(kind):
            putting.put_tree(client.remote, path, target, bar)
        else:
            putting.put_file(client.remote, path, target, OwnMounts(client.remote), bar)


def _put_standard_input(client: Client, remote: str | None, *, recursive: bool) -> None:
    if client.at_prompt:
        raise CommandError("standard input provides the commands here: put - works only outside the prompt")
    if remote is None or recursive:
        raise click.UsageError("put - requires REMOTE, and does not accept -r")
    path = remote_paths.normal(remote)
    now = file_clock.now_ns()
    with Bar() as bar:
        stream = sys.stdin.buffer
        mode = 0o666 & ~local_files.umask()
        putting.put_stream(client.remote, stream, path, Facts(mode, atime_ns=now, mtime_ns=now), bar)
