"""`dfc`: the command line: options, the list of commands, and the one place where all errors are handled.

    main            the process: runs `cli`, reports errors, exits with the documented code
    cli             the click group; without a command, it runs the prompt (`dfsfuse.cli.dfc.prompt`)

Command names are accepted in upper and lower case (LIST, GET, PUT). No connection is made before a command needs one,
so `--help` works without config and servers.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType

import click

import dfsfuse
from dfs_server.shared import command_line
from dfsfuse.cli import exit_codes
from dfsfuse.cli.dfc.client import Access, Client
from dfsfuse.cli.dfc.commands import ALIASES, COMMANDS
from dfsfuse.cli.reports import report

PROGRAM = "dfc"


class AnyCaseGroup(command_line.Group):
    """A group that accepts its commands' names in upper or lower case, and some aliases."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        name = cmd_name.lower()
        return super().get_command(ctx, ALIASES.get(name, name))

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(self.commands)  # in order of importance, not alphabetically


def _version(ctx: click.Context, _option: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        click.echo(f"dfc {dfsfuse.__version__}")
        ctx.exit()


@click.group(cls=AnyCaseGroup, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--config",
    metavar="FILE",
    type=click.Path(path_type=Path, readable=False),
    help="The client's config file (dfc.yaml).",
)
@click.option("--debug", is_flag=True, help="Show the log, and a traceback with every error.")
@click.option("--version", is_flag=True, callback=_version, expose_value=False, is_eager=True, help="Show the version.")
@click.pass_context
def cli(ctx: click.Context, config: Path | None, debug: bool) -> None:
    """Files on the four servers of dfsfuse, of which any one may fail.

    Without a COMMAND, dfc shows a prompt. Paths on the servers are absolute; the first slash may be left out.

    The config is FILE, or else $DFS_CONFIG, ./tryout/dfc.yaml, ./conf/dfc.yaml or ~/.config/dfsfuse/dfc.yaml.
    """
    client: Client = ctx.obj
    client.config, client.debug = config, debug
    _set_up_log(debug=debug)
    if ctx.invoked_subcommand is None:
        from dfsfuse.cli.dfc.prompt import prompt

        ctx.exit(prompt(ctx, client))


for _command in COMMANDS:
    cli.add_command(_command)


def access_to(config: Path | None) -> Access:
    """Access to the servers of a config. Imported only when needed, so that `dfc --help` is fast."""
    from dfsfuse.cli.dfc import connection

    return connection.Access(config)


def run(arguments: Sequence[str] | None = None, client: Client | None = None) -> int:
    """Run one command line, report errors, and return the exit code."""
    client = Client(access_to) if client is None else client
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        outcome = command_line.invoke(cli, arguments, PROGRAM, client)
        client.close()
    except BaseException as error:  # noqa: BLE001 (this is where every error ends)
        if isinstance(error, Exception) and not isinstance(error, click.Abort):
            with suppress(Exception):  # the first error is the one to report
                client.close()
        return report(error, debug=client.debug)
    return outcome if isinstance(outcome, int) else exit_codes.DONE


def _set_up_log(*, debug: bool) -> None:
    """Problems that resolve themselves (a server that is down) go to the log, which dfc shows on request."""
    if debug:
        logging.basicConfig(level=logging.DEBUG, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    else:
        logging.getLogger("dfsfuse").addHandler(logging.NullHandler())


def main() -> None:
    """The program `dfc`."""
    command_line.ensure_streams()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # on a terminal that is not UTF-8, `list` must not fail
            stream.reconfigure(errors="backslashreplace")
    client = Client(access_to)

    def leave(number: int, frame: FrameType | None) -> None:
        client.hurry()
        if number == signal.SIGINT:
            signal.default_int_handler(number, frame)
        sys.exit(128 + number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # nohup and shells' background jobs ignore it
            signal.signal(number, leave)  # so that a half-fetched file is removed
    code = command_line.flushed(run(client=client), PROGRAM)
    if code >= 128:
        os._exit(code)  # immediately: threads that wait for a server no longer matter
    sys.exit(code)


if __name__ == "__main__":
    main()
