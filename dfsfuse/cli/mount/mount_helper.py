"""`mount.dfs`: the helper that mount(8) runs for `mount -t fuse.dfs CONFIG MOUNTPOINT` and for such lines of
/etc/fstab.

For a type `fuse.dfs`, mount(8) looks for a helper /sbin/mount.fuse.dfs (and for `dfs`, /sbin/mount.dfs), and runs it
with source, mountpoint, `-o` and the options, and the flags of its own that concern a helper. `make
install-mount-helper` puts it there. The source is the client's config file, and the mount table shows it as the source,
by which `mount -a` recognises that a line is already mounted. Everything else is as with `dfsmount`, which it builds
on. Exit codes are those of mount(8), not those of `dfsmount`: scripts and systemd expect them.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from dfs_server.shared import command_line
from dfsfuse.cli.config import load_config
from dfsfuse.cli.exit_codes import DONE, INTERRUPTED, USAGE
from dfsfuse.cli.mount import dfsmount
from dfsfuse.mount import mountpoints, options

PROGRAM = "mount.dfs"
MOUNT_USAGE = 1
MOUNT_INTERRUPTED = 8
MOUNT_FAILED = 32
_CODES = {DONE: DONE, USAGE: MOUNT_USAGE, INTERRUPTED: MOUNT_INTERRUPTED}


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("config", type=click.Path(path_type=Path, readable=False))
@click.argument("mountpoint", type=Path)  # as in dfsmount
@click.option("-o", "option_lists", metavar="OPTIONS", multiple=True, help="Mount options, as for dfsmount.")
@click.option("-f", "fake", is_flag=True, help="Check everything, but do not mount.")
@click.option("-n", "no_mtab", is_flag=True, expose_value=False, help="Ignored: there is no /etc/mtab to write.")
@click.option("-s", "sloppy", is_flag=True, help="Ignore unknown options.")
@click.option("-t", "fs_type", metavar="TYPE", expose_value=False, help="Ignored: there is only one type.")
@click.option("-v", "verbose", is_flag=True, help="Log more.")
def cli(config: Path, mountpoint: Path, option_lists: tuple[str, ...], fake: bool, sloppy: bool, verbose: bool) -> int:
    """Mount the folder that the client's CONFIG (dfc.yaml) names at MOUNTPOINT. For mount(8); people use dfsmount."""
    # First, so that `-o fsname=` overrides it. A list of options cannot contain a comma.
    source = () if "," in str(config) else (f"fsname={config}",)
    parsed = options.parse((*source, *option_lists), as_root=os.geteuid() == 0, sloppy=sloppy)
    if fake:
        load_config(config)
        mountpoints.check(mountpoints.absolute(mountpoint), allow_nonempty=parsed.nonempty)
        return DONE
    return dfsmount.mount(dfsmount.Request(mountpoint, config, False, False, verbose, parsed))


def run(arguments: list[str] | None = None) -> int:
    """Run one command line, report errors, and return mount(8)'s exit code."""
    return _CODES.get(dfsmount.run(arguments, cli, PROGRAM), MOUNT_FAILED)


def main() -> None:
    """The program `mount.dfs`."""
    command_line.ensure_streams()
    sys.exit(command_line.flushed(run(), PROGRAM))


if __name__ == "__main__":
    main()
