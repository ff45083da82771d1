"""The command `dfs-server ROOT PORT`: one standalone server.

Prints one line on stdout when it is ready, logs to stderr, and stops on SIGTERM or Ctrl-C. Exit codes:

    0  stopped as asked (or --hash-password, --version, --help succeeded)
    1  something else went wrong; the sentence on standard error says what
    2  the command line is wrong
    3  the config file is missing or wrong
    4  the folder cannot be used: it is not writable, belongs to another server, or has another format
    5  another server is running on the folder
    6  cannot listen on the address, for example because the port is in use
  130  interrupted (Ctrl-C) while asking for a password

Turns each error of the other modules into one sentence. The main thread waits for a signal; the daemon has its own
threads.
"""

from __future__ import annotations

import contextlib
import errno
import getpass
import logging
import resource
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from dfs_server import __version__, config
from dfs_server.daemon import AddressError, Daemon
from dfs_server.server_folder import FolderBusyError, FolderError, ServerFolder
from dfs_server.shared import command_line, config_file
from dfs_server.shared.config_file import ConfigError
from dfs_server.shared.memory import give_back_large_blocks, share_one_heap
from dfs_server.wire.accounts import Verifier

PROGRAM = "dfs-server"
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_CONFIG = 3
EXIT_FOLDER = 4
EXIT_BUSY = 5
EXIT_ADDRESS = 6
EXIT_INTERRUPTED = 130
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)

log = logging.getLogger(__name__)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("root", metavar="ROOT", type=click.Path(path_type=Path, readable=False), required=False)
@click.argument("port", metavar="PORT", type=click.IntRange(0, 65535), required=False)
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option(
    "--config",
    "config_path",
    metavar="FILE",
    type=click.Path(path_type=Path, readable=False),
    help="The list of users. Default: $DFS_CONFIG, ./tryout/dfs.yaml, ./conf/dfs.yaml, ~/.config/dfsfuse/dfs.yaml.",
)
@click.option("--hash-password", is_flag=True, help="Ask for a password and print the value for 'scram:'.")
@click.option("-v", "--verbose", count=True, help="Log more; twice: everything.")
@click.version_option(__version__, prog_name=PROGRAM, message="%(prog)s %(version)s", help="Show the version.")
def cli(
    root: Path | None,
    port: int | None,
    host: str,
    config_path: Path | None,
    hash_password: bool,
    verbose: int,
) -> int:
    """Serve the folder ROOT on PORT, as one of the four servers of dfsfuse.

    The server's name is the last part of ROOT: `dfs-server DFS1 10001` is server DFS1. ROOT is created if it is
    missing.
    """
    if hash_password:
        return _hash_password()
    if root is None or port is None:
        raise click.UsageError("ROOT and PORT must be given: dfs-server DFS1 10001")
    level = (logging.WARNING, logging.INFO, logging.DEBUG)[min(verbose, 2)]
    logging.basicConfig(stream=sys.stderr, level=level, format=f"%(asctime)s {root.name} %(levelname)s %(message)s")
    _serve(root, host, port, config.read(config_file.find(config_path, config.FILE_NAME)))
    return 0


def _serve(root: Path, host: str, port: int, settings: config.ServerConfig) -> None:
    """Serve until SIGTERM or SIGINT."""
    # Blocked here and in the threads created from here on, then waited for, so that nothing is interrupted halfway.
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)
    share_one_heap()
    give_back_large_blocks()
    with contextlib.suppress(OSError, ValueError):  # each user's namespace has a few files open, each connection one
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    for warning in settings.warnings:
        log.warning("%s", warning)
    with ServerFolder.open(root) as folder:
        daemon = Daemon(folder, settings, host, port)
        daemon.start()
        listening_host, listening_port = daemon.address
        shown_host = f"[{listening_host}]" if ":" in listening_host else listening_host
        _announce(f"{folder.name} ready on {shown_host}:{listening_port}, root {folder.path}")
        signal.sigwait(_STOP_SIGNALS)
        log.info("stopping")
        daemon.stop()


def _announce(line: str) -> None:
    """Print the ready line. The server runs even if nobody can read it."""
    try:
        click.echo(line)
    except OSError as error:
        command_line.drop_output()
        log.info("%s (standard output: %s)", line, error.strerror)


def _hash_password() -> int:
    """Print the verifier of a password that is typed twice, or read from the first line of a pipe."""
    if sys.stdin.isatty():
        password = getpass.getpass("Password: ")
        if password != getpass.getpass("Once more: "):
            raise click.UsageError("the two passwords differ")
    else:
        try:
            password = sys.stdin.readline().rstrip("\r\n")
        except OSError as error:
            raise OSError(error.errno or errno.EIO, error.strerror, "standard input") from error
    try:
        click.echo(Verifier.of_password(password))
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    return 0


def run(arguments: Sequence[str]) -> int:
    """Run one command line; an error becomes one sentence and the exit code."""
    try:
        outcome = command_line.invoke(cli, arguments, PROGRAM)
        return outcome if isinstance(outcome, int) else 0
    except (click.ClickException, click.Abort, ConfigError, FolderError, AddressError, OSError) as error:
        sentence, code = _told(error)
        with contextlib.suppress(OSError):
            click.echo(f"{PROGRAM}: {sentence}", err=True)
        return code


def _told(error: Exception) -> tuple[str, int]:
    match error:
        case click.ClickException():
            return command_line.usage_sentence(error, PROGRAM), EXIT_USAGE
        case click.Abort():
            return "interrupted", EXIT_INTERRUPTED
        case ConfigError():
            return str(error), EXIT_CONFIG
        case FolderBusyError():
            return str(error), EXIT_BUSY
        case FolderError():
            return str(error), EXIT_FOLDER
        case AddressError():
            return str(error), EXIT_ADDRESS
        case OSError(filename=str(name)):
            return f"{name}: {error.strerror}", EXIT_FAILED
        case _:
            return str(error), EXIT_FAILED


def main() -> None:
    """The program `dfs-server`."""
    command_line.ensure_streams()
    sys.exit(command_line.flushed(run(sys.argv[1:]), PROGRAM))
