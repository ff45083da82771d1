"""`make run` and `make stop`: four servers on this machine, and the folder mounted, for trying dfsfuse out.

The config is conf/, with separate passwords for the try-out (`dfsfuse.cli.local.tryout`).

Everything that is started is recorded in .run/ (a pid file and a log for each server, the mountpoints, the mount's
log), so that `stop` finds it and leaves nothing behind but the data in DFS1..DFS4. A second `run` starts only what is
not running.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import click

from dfs_server.shared import command_line, config_file, homes
from dfs_server.shared.config_file import ConfigError
from dfsfuse.cli.config import FILE_NAME, load_config
from dfsfuse.cli.exit_codes import DONE, USAGE, exit_code_of
from dfsfuse.cli.local import server_processes, tryout
from dfsfuse.cli.local.server_processes import ServerProcess
from dfsfuse.cli.mount import dfsmount
from dfsfuse.errors import DfsError
from dfsfuse.mount import mountpoints, unmounting
from dfsfuse.mount.errors import MountpointError

EXAMPLE = Path("conf")
CLIENT_CONFIG = config_file.TRYOUT / FILE_NAME
SERVER_CONFIG = config_file.TRYOUT / tryout.SERVER_FILE_NAME
RUN_FOLDER = Path(".run")


@click.group(cls=command_line.Group)
def cli() -> None:
    """Start and stop everything on this machine."""


@cli.command()
@click.argument("mountpoint", type=Path)  # as in dfsmount
def run(mountpoint: Path) -> int:
    """Start the servers and mount at MOUNTPOINT."""
    mountpoint = mountpoints.absolute(homes.expanded(mountpoint))
    _refuse_to_cover(mountpoint)
    tryout.ensure(EXAMPLE, config_file.TRYOUT)
    RUN_FOLDER.mkdir(mode=0o700, exist_ok=True)
    processes = _processes()
    if any(process.is_outdated() for process in processes):
        click.echo(f"The try-out now has its own passwords, in {config_file.TRYOUT}/: restarting it.")
        code = _unmount_all()
        if code != DONE:
            return code
        server_processes.stop(processes)
    started = [process.root.name for process in server_processes.start(processes)]
    running = ", ".join(f"{process.root.name} on {process.port}" for process in processes)
    if not started:
        running += " (they were running already)"
    elif len(started) < len(processes):
        running += f" ({', '.join(started)} started; the others were running already)"
    click.echo(f"Servers: {running}")
    mount = mountpoints.mounted_at(mountpoint)
    if mount is not None and mount.is_ours and not unmounting.is_stale(mountpoint):
        click.echo(f"Mounted: {mountpoint} (it was already)")
    else:
        code = _mount(mountpoint)
        if code != DONE:
            return code
        click.echo(f"Mounted: {mountpoint}")
    first = processes[0]
    shown, copy = shlex.quote(f"{mountpoint}/"), shlex.quote(f"{mountpoint}/bash")
    click.echo(f"  try:        cp -r /usr/share/doc/bash {shown} && ls -l {copy}")
    click.echo(f"  and then:   kill -9 {first.running_pid()} ({first.root.name}): everything is still there")
    click.echo("  and last:   make stop")
    return DONE


def _refuse_to_cover(mountpoint: Path) -> None:
    """Raise MountpointError for a mountpoint that contains this clone: the mount would cover the servers' folders."""
    here = Path.cwd()
    if here == mountpoint or mountpoint in here.parents:
        raise MountpointError(
            f"{mountpoint} cannot be the mountpoint: this clone ({here}), with the servers' folders, would be "
            f"under it. Choose another folder: make run MOUNT={shlex.quote(os.fspath(here.parent / 'dfs-files'))}"
        )


@cli.command()
def stop() -> int:
    """Unmount and stop the servers."""
    code = _unmount_all()
    if code != DONE:
        return code
    stopped = [process.root.name for process in server_processes.stop(_processes())]
    shutil.rmtree(RUN_FOLDER, ignore_errors=True)
    done = f"Stopped: {', '.join(stopped)}" if stopped else "No server was running"
    click.echo(f"{done}. The data stays in DFS1 to DFS4.")
    return DONE


def _unmount_all() -> int:
    """Unmount what earlier runs mounted, and remove the folders that they created. Returns the exit code."""
    code = DONE
    for folder, made in _recorded():
        try:
            click.echo(unmounting.unmount(folder))
        except MountpointError as error:
            click.echo(f"{error}")
        except DfsError as error:
            click.echo(f"make stop: {error}", err=True)
            code = error.exit_code
            continue
        if made:
            with suppress(OSError):
                folder.rmdir()
    return code


def _processes() -> list[ServerProcess]:
    config = load_config(CLIENT_CONFIG if CLIENT_CONFIG.exists() else EXAMPLE / FILE_NAME)
    run_folder, server_config = RUN_FOLDER.absolute(), SERVER_CONFIG.absolute()
    return [
        ServerProcess(Path(server.name).absolute(), server.port, server_config, run_folder, server.host)
        for server in config.servers
    ]


def _mount(mountpoint: Path) -> int:
    made = False
    if not os.path.lexists(mountpoint):
        mountpoint.mkdir(parents=True)
        made = True
    with (RUN_FOLDER / "mountpoints").open("a") as record:
        record.write(json.dumps(["made" if made else "found", os.fspath(mountpoint)]) + "\n")
    log = RUN_FOLDER.absolute() / "dfsmount.log"
    command = [sys.executable, "-m", dfsmount.__name__, "--config", os.fspath(CLIENT_CONFIG)]
    return subprocess.run([*command, "-o", f"log={log}", os.fspath(mountpoint)], check=False).returncode


def _recorded() -> list[tuple[Path, bool]]:
    """The mountpoints of earlier runs, and whether we created the folder."""
    try:
        lines = (RUN_FOLDER / "mountpoints").read_text().split("\n")
    except FileNotFoundError:
        return []
    found: dict[Path, bool] = {}
    for line in filter(None, lines):
        # Up to version 0.1 it was the path itself, after a space.
        how, path = json.loads(line) if line.startswith("[") else line.split(" ", 1)
        found[Path(path)] = found.get(Path(path), False) or how == "made"
    return list(found.items())


def main() -> None:
    """The module as a program."""
    try:
        command_line.ensure_streams()
        code = command_line.invoke(cli, sys.argv[1:], "make")
    except click.ClickException as error:
        click.echo(f"make: {error.format_message()}", err=True)
        sys.exit(USAGE)
    except (DfsError, ConfigError, OSError) as error:
        click.echo(f"make: {error}", err=True)
        sys.exit(exit_code_of(error))
    sys.exit(code if isinstance(code, int) else DONE)


if __name__ == "__main__":
    main()
