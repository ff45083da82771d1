"""The command `dfs-server ROOT PORT`: one standalone server.

Prints one line on stdout when it is ready, logs to stderr, and stops on SIGTERM or Ctrl-C. Exit codes:

    0  stopped as asked (or --hash-password, --version, --help did their work)
    1  a mistake of this program
    2  the command line is wrong
    3  the config file is missing or wrong
    4  the folder cannot be used: not writable, of another server, of another format
    5  another server runs on the folder
    6  the address cannot be listened on, for one because the port is taken

Knows the other modules' ways to fail and turns each into one sentence. The main thread waits for a signal; the daemon
has threads of its own.
"""

from __future__ import annotations

import contextlib
import getpass
import logging
import resource
import signal
import sys
from pathlib import Path

import click

from dfs_server import __version__, config, config_file
from dfs_server.accounts import Verifier
from dfs_server.config_file import ConfigError
from dfs_server.daemon import AddressError, Daemon
from dfs_server.memory import give_back_large_blocks
from dfs_server.server_folder import FolderBusyError, FolderError, ServerFolder

EXIT_CONFIG = 3
EXIT_FOLDER = 4
EXIT_BUSY = 5
EXIT_ADDRESS = 6
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)

log = logging.getLogger(__name__)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("root", metavar="ROOT", type=click.Path(path_type=Path), required=False)
@click.argument("port", metavar="PORT", type=click.IntRange(0, 65535), required=False)
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option(
    "--config",
    "config_path",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Who the users are. Without it: $DFS_CONFIG, ./conf/dfs.yaml, ~/.config/dfsfuse/dfs.yaml.",
)
@click.option("--hash-password", is_flag=True, help="Ask for a password and print what to write as 'scram:'.")
@click.option("-v", "--verbose", count=True, help="Log more; twice: everything.")
@click.version_option(__version__, prog_name="dfs-server")
def main(
    root: Path | None,
    port: int | None,
    host: str,
    config_path: Path | None,
    hash_password: bool,
    verbose: int,
) -> None:
    """Serve the folder ROOT on PORT, as one of the four servers of dfsfuse.

    The server's name is ROOT's last part: `dfs-server DFS1 10001` is server DFS1. ROOT is made if it is missing.
    """
    if hash_password:
        _hash_password()
        return
    if root is None or port is None:
        raise click.UsageError("ROOT and PORT must be given: dfs-server DFS1 10001")
    level = (logging.WARNING, logging.INFO, logging.DEBUG)[min(verbose, 2)]
    logging.basicConfig(stream=sys.stderr, level=level, format=f"%(asctime)s {root.name} %(levelname)s %(message)s")
    try:
        _serve(root, host, port, config.read(config_file.find(config_path, config.FILE_NAME)))
    except ConfigError as error:
        _fail(error, EXIT_CONFIG)
    except FolderBusyError as error:
        _fail(error, EXIT_BUSY)
    except FolderError as error:
        _fail(error, EXIT_FOLDER)
    except AddressError as error:
        _fail(error, EXIT_ADDRESS)


def _serve(root: Path, host: str, port: int, settings: config.ServerConfig) -> None:
    """Serve until SIGTERM or SIGINT."""
    # Blocked here and in the threads made from here on, then waited for: nothing is ever interrupted halfway.
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)
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
        click.echo(f"{folder.name} ready on {shown_host}:{listening_port}, root {folder.path}")
        sys.stdout.flush()
        signal.sigwait(_STOP_SIGNALS)
        log.info("stopping")
        daemon.stop()


def _hash_password() -> None:
    """Print the verifier of a password that is typed twice, or comes as the first line of a pipe."""
    if sys.stdin.isatty():
        password = getpass.getpass("Password: ")
        if password != getpass.getpass("Once more: "):
            raise click.UsageError("the two passwords differ")
    else:
        password = sys.stdin.readline().rstrip("\r\n")
    try:
        click.echo(Verifier.of_password(password))
    except ValueError as error:
        raise click.UsageError(str(error)) from error


def _fail(error: Exception, exit_code: int) -> None:
    click.echo(f"dfs-server: {error}", err=True)
    sys.exit(exit_code)
