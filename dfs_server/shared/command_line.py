"""The common start and end of the three commands: streams, empty arguments, one error sentence, an exit status.

    ensure_streams      called first: descriptors 0, 1 and 2 are open from here on
    refuse_empty        an empty argument is an error of the caller, never a default
    invoke              runs a click command; errors are raised as exceptions
    usage_sentence      the message for a wrong command line
    flushed             called last: the output is written, or the status says that it is not

Knows click and the standard streams, but no command. No threads.
"""

from __future__ import annotations

import errno
import os
import re
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

import click

FAILED = 1
_NUMBERS: Final = re.compile(r" is not a valid (integer|float)(?: range)?$")
_NAMED: Final = {"integer": "a whole number", "float": "a number"}
OUTPUT_CLOSED = 141  # 128 + SIGPIPE: what a shell shows for a program that was ended by this signal


def ensure_streams() -> None:
    """Open those of the descriptors 0, 1 and 2 that are closed, before anything else gets their numbers.

    A socket or a file that is opened as number 2 would receive our error messages. As with gnulib's stdopen, closed
    input cannot be read and closed output cannot be written: a command that needs it fails with an error message,
    instead of reading nothing or losing its output. Standard error goes to /dev/null.
    """
    for number, flags in enumerate((os.O_WRONLY, os.O_RDONLY, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError as error:
            if error.errno != errno.EBADF:
                raise
            with suppress(OSError):  # no /dev/null: later operations report what fails
                opened = os.open(os.devnull, flags)
                if opened != number:
                    os.dup2(opened, number)
                    os.close(opened)
    for name, number, mode in (("stdin", 0, "r"), ("stdout", 1, "w"), ("stderr", 2, "w")):
        if getattr(sys, name) is None:  # the interpreter found it closed when it started
            stream = open(number, mode, errors="surrogateescape", closefd=False)  # noqa: SIM115
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)


def refuse_empty(
    command: click.Command, arguments: Sequence[str], name: str, above: click.Context | None = None
) -> None:
    """Raise UsageError if an argument, or an option's value, is empty: usually an unset variable in a script.

    Checks the words before they become paths, because the path of an empty text is the current folder. Lists of options
    (`-o`) may be empty, as with mount(8).
    """
    context = click.Context(command, info_name=name, parent=above)
    try:
        given, _, _ = command.make_parser(context).parse_args(list(arguments))
    except click.UsageError:
        return  # the command itself will report it
    for parameter in command.params:
        values = given.get(parameter.name or "")
        if isinstance(parameter, click.Option) and parameter.multiple:
            continue
        if "" in (values if isinstance(values, tuple | list) else (values,)):
            called = parameter.opts[0] if isinstance(parameter, click.Option) else parameter.human_readable_name
            called = called.strip("[].")
            raise click.UsageError(f"{called} is empty (is it a variable that is not set?)", context)


class Group(click.Group):
    """A group of commands, none of which accepts an empty argument."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        _as_typed, command, rest = super().resolve_command(ctx, args)
        if command is None:
            return None, None, rest
        name = command.name or ""
        if not ctx.resilient_parsing:
            refuse_empty(command, rest, name, ctx)
        return name, command, rest


def invoke(command: click.Command, arguments: Sequence[str], program: str, obj: object = None) -> object:
    """Run a command line; returns the command's result, or its exit code.

    `click.Command.main` would silently end the program at any broken pipe, even of a connection.
    """
    refuse_empty(command, arguments, program)
    try:
        with command.make_context(program, list(arguments), obj=obj) as context:
            return command.invoke(context)
    except click.exceptions.Exit as leave:
        return leave.exit_code
    except (EOFError, KeyboardInterrupt) as error:
        click.echo(err=True)  # the terminal shows ^C, or the prompt of a question
        raise click.Abort from error


def usage_sentence(error: click.ClickException, program: str) -> str:
    """One sentence about a wrong command line, to follow `PROGRAM: `."""
    text = " ".join(error.format_message().split())
    if not isinstance(error, click.UsageError):
        return text
    where = error.ctx.command_path if error.ctx else program
    text = text.rstrip(".")
    text = _NUMBERS.sub(lambda found: f" is not {_NAMED[found[1]]}", text)
    text = text[:1].lower() + text[1:] if text[1:2].islower() or text[1:2] == " " else text
    return f"{text} (see: {where} --help)"


def flushed(code: int, program: str) -> int:
    """Flush standard output; returns the exit code, which indicates a failure to do so.

    Afterwards nothing is left that could make the interpreter fail when it exits.
    """
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        code = code or OUTPUT_CLOSED
        drop_output()
    except (OSError, ValueError) as error:
        if not code:
            reason = getattr(error, "strerror", None) or str(error)
            with suppress(OSError, ValueError):
                click.echo(f"{program}: standard output: {reason}", err=True)
        code = code or FAILED
        drop_output()
    with suppress(OSError, ValueError):
        sys.stderr.flush()
    return code


def drop_output() -> None:
    """Discard what standard output could not take, and everything written to it from here on."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
