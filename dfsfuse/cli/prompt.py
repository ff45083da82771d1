"""The prompt `dfc> `: one command a line, until `quit` or the end of the input.

On a terminal prompt_toolkit reads the lines, with history and completion (`dfsfuse.cli.completion`). Where input or
output is a pipe or a file, lines are read as they are, and the prompt is printed all the same. A command that fails, or
that Ctrl-C ends, never ends the prompt. The exit code is that of the last command that failed, if any did.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dfsfuse.cli import exit_codes
from dfsfuse.cli.client import Client
from dfsfuse.cli.output import OutputClosed, complain, write_line
from dfsfuse.cli.reports import report

if TYPE_CHECKING:
    from prompt_toolkit.history import History

PROMPT = "dfc> "
LEAVE = {"quit", "exit", "bye"}


def prompt(ctx: click.Context, client: Client) -> int:
    """Prompt for commands and run them; gives the exit code. Raises DfsError if the servers refuse us to begin with."""
    client.at_prompt = True
    _ = client.remote  # nothing happens before authentication, and its failure is not a command's
    on_terminal = sys.stdin.isatty() and sys.stdout.isatty()
    lines = _lines_of_terminal(ctx, client) if on_terminal else _lines_of_pipe()
    code = exit_codes.DONE
    for line in lines:
        try:
            words = shlex.split(line)
        except ValueError as error:
            complain(f"{str(error).lower()}: put quotes around a name as in a shell")
            code = exit_codes.USAGE
            continue
        if not words:
            continue
        if words[0].lower() in LEAVE:
            break
        outcome = run_words(ctx, client, words)
        code = outcome or code
    return code


def run_words(ctx: click.Context, client: Client, words: list[str]) -> int:
    """One command, as words. Its failure is reported; only that nobody reads our output any more comes out."""
    try:
        if words[0].lower() in ("help", "?"):
            _help(ctx, words[1:])
            return exit_codes.DONE
        group = ctx.command
        assert isinstance(group, click.Group)
        name, command, rest = group.resolve_command(ctx, words)
        assert command is not None
        with command.make_context(name, rest, parent=ctx) as below:
            command.invoke(below)
        return exit_codes.DONE
    except OutputClosed:
        raise
    except click.exceptions.Exit as leave:  # --help
        return leave.exit_code
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 (an error in one command never ends the prompt)
        return report(error, debug=client.debug)


def _help(ctx: click.Context, words: list[str]) -> None:
    group = ctx.command
    assert isinstance(group, click.Group)
    if words:
        name, command, _rest = group.resolve_command(ctx, words)
        assert command is not None
        with command.make_context(name, ["--help"], parent=ctx, resilient_parsing=True) as below:
            write_line(command.get_help(below))
        return
    width = max(len(name) for name in group.list_commands(ctx))
    for name in group.list_commands(ctx):
        command = group.get_command(ctx, name)
        assert command is not None
        write_line(f"  {name:<{width}}  {command.get_short_help_str(80)}")
    write_line(f"  {'help':<{width}}  help COMMAND says more about one of them.")
    write_line(f"  {'quit':<{width}}  Leave; so does Ctrl-D. Ctrl-C ends a command that runs.")


def _lines_of_pipe() -> Iterator[str]:
    """Lines as bytes from standard input, so that a name may have any bytes."""
    stream = sys.stdin.buffer
    while True:
        click.echo(PROMPT, nl=False)
        line = stream.readline()
        if not line:
            click.echo()
            return
        yield os.fsdecode(line).rstrip("\r\n")


def _lines_of_terminal(ctx: click.Context, client: Client) -> Iterator[str]:
    from prompt_toolkit import PromptSession

    from dfsfuse.cli.completion import DfcCompleter

    group = ctx.command
    assert isinstance(group, click.Group)
    session: PromptSession[str] = PromptSession(
        PROMPT,
        history=history(),
        completer=DfcCompleter(client.remote, group.list_commands(ctx)),
        complete_in_thread=True,
        complete_while_typing=False,
    )
    while True:
        try:
            yield session.prompt()
        except KeyboardInterrupt:
            continue  # Ctrl-C with no command running: a new line
        except EOFError:
            return


def state_folder() -> Path:
    """Where the history is kept (XDG base directories)."""
    base = os.environ.get("XDG_STATE_HOME", "")
    return (Path(base) if base.startswith("/") else Path.home() / ".local" / "state") / "dfsfuse"


def history() -> History:
    """The history of former runs; of this run only where that cannot be written."""
    from prompt_toolkit.history import FileHistory, InMemoryHistory

    try:
        folder = state_folder()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = folder / "dfc_history"
        path.touch(mode=0o600)
        with path.open("ab"):
            return FileHistory(path)
    except (OSError, RuntimeError):
        return InMemoryHistory()
