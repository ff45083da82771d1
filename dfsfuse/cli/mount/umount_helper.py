"""`umount.dfs`: what umount(8) runs for a mount of ours, so that it returns when all is on the servers.

For a mount of the type `fuse.dfs`, umount(8) looks for a helper /sbin/umount.fuse.dfs, and runs it with the mountpoint
and those of its own flags that a helper is to know; `make install-mount-helper` puts it there. systemd and autofs
unmount by umount(8), and so wait too. `umount -i` runs no helper, and fusermount3 knows none.

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
@click.option("-f", "force", is_flag=True, help="Programs that wait for the mount get errors (root).")
@click.option("-l", "lazy", is_flag=True, help="Even if programs use it; then nothing is waited for.")
@click.option("-n", "no_mtab", is_flag=True, expose_value=False, help="Ignored: there is no /etc/mtab to write.")
@click.option("-r", "read_only", is_flag=True, expose_value=False, help="Ignored: it is not remounted.")
@click.option("-v", "verbose", is_flag=True, help="Say what was done.")
@click.option("-N", "namespace", metavar="NS", help="Refused: say umount -i -N.")
@click.option("-t", "fs_type", metavar="TYPE", expose_value=False, help="Ignored: there is only one type.")
def cli(mountpoint: Path, force: bool, lazy: bool, verbose: bool, namespace: str | None) -> int:
    """Unmount MOUNTPOINT and wait until everything is on the servers. For umount(8); people use dfsmount -u."""
    if namespace is not None:
        raise click.UsageError("-N: unmounting in another namespace is not waited for; use: umount -i -N")
    try:
        return dfsmount.end(mountpoint, lazy=lazy, force=force, is_quiet=not verbose)
    except MountedElsewhereError as error:  # for umount(8) that is another mount, and this one is gone
        click.echo(f"{PROGRAM}: {error}", err=True)
        return DONE


def run(arguments: list[str] | None = None) -> int:
    """Run one command line, report what goes wrong, and give umount(8)'s exit code."""
    return _CODES.get(dfsmount.run(arguments, cli, PROGRAM), UMOUNT_FAILED)


def main() -> None:
    """The program `umount.dfs`."""
    command_line.ensure_streams()
    sys.exit(command_line.flushed(run(), PROGRAM))


if __name__ == "__main__":
    main()
