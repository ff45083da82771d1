"""The prompt `dfc> `: one command per line, until `quit` or the end of the input.

On a terminal prompt_toolkit reads the lines, with history and completion (`dfsfuse.cli.dfc.completion`). If input or
output is a pipe or a file, lines are read as they are, and the prompt is printed all the same. A command that fails
never ends the prompt, and neither does Ctrl-C on a terminal. The exit code is that of the last command that failed, if
any did.
"""

from __future__ import annotations

import errno
import os
import shlex
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from dfs_server.shared import homes
from dfsfuse.cli import exit_codes
from dfsfuse.cli.dfc.client import Client
from dfsfuse.cli.dfc.commands.help import help_of
from dfsfuse.cli.output import OutputClosed, complain, write_line
from dfsfuse.cli.reports import report

if TYPE_CHECKING:
    from prompt_toolkit.history import History

PROMPT = "dfc> "
LEAVE = {"quit", "exit", "bye"}


def prompt(ctx: click.Context, client: Client) -> int:
    """Prompt for commands and run them; returns the exit code. Raises DfsError if the servers refuse the user at the
    start."""
    client.at_prompt = True
    _ = client.remote  # authenticate first: a failure here does not belong to any command
    on_terminal = sys.stdin.isatty() and sys.stdout.isatty()
    read_line = _reader_of_terminal(ctx, client) if on_terminal else _line_of_pipe
    return converse(ctx, client, read_line, on_terminal=on_terminal)


def converse(ctx: click.Context, client: Client, read_line: Callable[[], str | None], *, on_terminal: bool) -> int:
    """Run line after line until `read_line` returns None; returns the exit code.

    On a terminal, Ctrl-C at any time ends whatever is under way (a command, or a half-typed line), and the prompt goes
    on. In a script it ends everything.
    """
    code = exit_codes.DONE
    while True:
        try:
            line = read_line()
            if line is None:
                return code
            words = _words(line)
            if words and words[0].lower() in LEAVE:
                if len(words) == 1:
                    return code
                raise BadLineError(f"{words[0]} takes no arguments: type it alone to leave the prompt")
            code = run_words(ctx, client, words) or code
        except KeyboardInterrupt as error:
            if not on_terminal:
                raise
            code = report(error)
        except BadLineError as error:
            complain(str(error))
            code = exit_codes.USAGE


class BadLineError(Exception):
    """The prompt does not understand the line: it cannot be split into words, or has one word too many."""


def _words(line: str) -> list[str]:
    try:
        return shlex.split(line)
    except ValueError as error:
        raise BadLineError(f"{str(error).lower()}: put quotes around a name as in a shell") from error


def run_words(ctx: click.Context, client: Client, words: list[str]) -> int:
    """Run one command, given as words. Its failure is reported; only Ctrl-C and a closed output are raised."""
    if not words:
        return exit_codes.DONE
    try:
        if words[0].lower() in ("help", "?"):
            _help(ctx, words[1:])
            return exit_codes.DONE
        name, command, rest = _group(ctx).resolve_command(ctx, words)
        assert command is not None
        with command.make_context(name, rest, parent=ctx) as below:
            command.invoke(below)
        return exit_codes.DONE
    except OutputClosed:
        raise
    except click.exceptions.Exit as leave:  # --help
        return leave.exit_code
    except Exception as error:  # noqa: BLE001 (an error in one command never ends the prompt)
        return report(error, debug=client.debug)


def _group(ctx: click.Context) -> click.Group:
    assert isinstance(ctx.command, click.Group)
    return ctx.command


def _help(ctx: click.Context, words: list[str]) -> None:
    group = _group(ctx)
    if words:
        write_line(help_of(ctx, words))
        return
    width = max(len(name) for name in group.list_commands(ctx))
    for name in group.list_commands(ctx):
        command = group.get_command(ctx, name)
        assert command is not None
        write_line(f"  {name:<{width}}  {command.get_short_help_str(80)}")
    write_line(f"  {'quit':<{width}}  Leave; so does Ctrl-D. Ctrl-C ends a command that runs.")


def _line_of_pipe() -> str | None:
    """The next line of standard input, read as bytes, since a name may contain any byte."""
    click.echo(PROMPT, nl=False)
    try:
        line = sys.stdin.buffer.readline()
    except OSError as error:
        raise OSError(error.errno or errno.EIO, error.strerror or str(error), "standard input") from error
    if not line:
        click.echo()
        return None
    return os.fsdecode(line).rstrip("\r\n")


def _reader_of_terminal(ctx: click.Context, client: Client) -> Callable[[], str | None]:
    from prompt_toolkit import PromptSession
    from prompt_toolkit.shortcuts import CompleteStyle

    from dfsfuse.cli.dfc.completion import DfcCompleter

    session: PromptSession[str] = PromptSession(
        # with a style, the trailing space is written instead of skipped by a cursor movement
        [("fg:ansidefault", PROMPT)],
        history=history(),
        completer=DfcCompleter(client.remote, _group(ctx).list_commands(ctx)),
        complete_in_thread=True,
        complete_while_typing=False,
        complete_style=CompleteStyle.READLINE_LIKE,
        reserve_space_for_menu=0,
    )

    def read_line() -> str | None:
        while True:
            try:
                return session.prompt()
            except KeyboardInterrupt:
                continue  # a half-typed line is dropped silently
            except EOFError:
                return None

    return read_line


def history() -> History:
    """The history of earlier runs; only that of this run if the history file cannot be written."""
    from prompt_toolkit.history import FileHistory, InMemoryHistory

    folder = homes.state_folder()
    if folder is None:
        return InMemoryHistory()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = folder / "dfc_history"
        path.touch(mode=0o600)
        with path.open("ab"):
            return FileHistory(path)
    except OSError:
        return InMemoryHistory()
