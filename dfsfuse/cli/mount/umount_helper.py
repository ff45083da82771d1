"""`umount.dfs`: the helper that umount(8) runs for our mounts, so that it returns when everything is on the servers.

For a mount of the type `fuse.dfs`, umount(8) looks for a helper /sbin/umount.fuse.dfs, and runs it with the mountpoint
and the flags of its own that concern a helper; `make install-mount-helper` puts it there. systemd and autofs unmount
through umount(8), and so wait too. `umount -i` runs no helper, and fusermount3 does not know about helpers.

Exit codes are those of umount(8).
"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from dfs_server.shared import command_line
from dfsfuse.cli.exit_codes import DONE, INTERRUPTED, USAGE
from dfsfuse.cli.mount import dfsmount
from dfsfuse.mount.errors import MountedElsewhereError

PROGRAM = "umount.dfs"
UMOUNT_USAGE = 1
UMOUNT_INTERRUPTED = 8
UMOUNT_FAILED = 32
_CODES = {DONE: DONE, USAGE: UMOUNT_USAGE, INTERRUPTED: UMOUNT_INTERRUPTED}


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("mountpoint", type=Path)  # as in dfsmount
@click.option("-f", "force", is_flag=True, help="Give errors to programs that wait for the mount (root only).")
@click.option("-l", "lazy", is_flag=True, help="Unmount even if programs are using it, without waiting.")
@click.option("-n", "no_mtab", is_flag=True, expose_value=False, help="Ignored: there is no /etc/mtab to write.")
@click.option("-r", "read_only", is_flag=True, expose_value=False, help="Ignored: the mount is not remounted.")
@click.option("-v", "verbose", is_flag=True, help="Say what was done.")
@click.option("-N", "namespace", metavar="NS", help="Refused: use umount -i -N.")
@click.option("-t", "fs_type", metavar="TYPE", expose_value=False, help="Ignored: there is only one type.")
def cli(mountpoint: Path, force: bool, lazy: bool, verbose: bool, namespace: str | None) -> int:
    """Unmount MOUNTPOINT and wait until everything is on the servers. For umount(8); people use dfsmount -u."""
    if namespace is not None:
        raise click.UsageError("-N: unmounting in another namespace cannot be waited for; use: umount -i -N")
    try:
        return dfsmount.end(mountpoint, lazy=lazy, force=force, is_quiet=not verbose)
    # the mount in this namespace is gone, and that is the only one that umount(8) is about
    except MountedElsewhereError as error:
        click.echo(f"{PROGRAM}: {error}", err=True)
        return DONE


def run(arguments: list[str] | None = None) -> int:
    """Run one command line, report errors, and return umount(8)'s exit code."""
    return _CODES.get(dfsmount.run(arguments, cli, PROGRAM), UMOUNT_FAILED)


def main() -> None:
    """The program `umount.dfs`."""
    command_line.ensure_streams()
    sys.exit(command_line.flushed(run(), PROGRAM))


if __name__ == "__main__":
    main()
