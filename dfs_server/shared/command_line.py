"""What the three commands have in common at their beginning and end: streams, empty arguments, one sentence, a status.

    ensure_streams      first of all: descriptors 0, 1 and 2 are open from here on
    refuse_empty        an argument that is empty text is a mistake of the caller, never a default
    invoke              runs a click command; what goes wrong comes out as the exception that it is
    usage_sentence      what to say of a command line that is wrong
    flushed             last of all: what was written is out, or the status says that it is not

Knows click and the standard streams, and no command. No threads.
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
OUTPUT_CLOSED = 141  # 128 + SIGPIPE: what a shell shows for a program that the signal ended


def ensure_streams() -> None:
    """Open what of the descriptors 0, 1 and 2 is closed, before anything else gets that number.

    A socket or a file that is opened as number 2 would get our error messages. As gnulib's stdopen does it, input that
    is closed cannot be read and output that is closed cannot be written: a command that needs it fails with a sentence,
    instead of taking nothing for its input or dropping what it was to print. Standard error goes to /dev/null.
    """
    for number, flags in enumerate((os.O_WRONLY, os.O_RDONLY, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError as error:
            if error.errno != errno.EBADF:
                raise
            with suppress(OSError):  # no /dev/null: what follows says what it cannot do
                opened = os.open(os.devnull, flags)
                if opened != number:
                    os.dup2(opened, number)
                    os.close(opened)
    for name, number, mode in (("stdin", 0, "r"), ("stdout", 1, "w"), ("stderr", 2, "w")):
        if getattr(sys, name) is None:  # the interpreter found it closed when it began
            stream = open(number, mode, errors="surrogateescape", closefd=False)  # noqa: SIM115
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)


def refuse_empty(
    command: click.Command, arguments: Sequence[str], name: str, above: click.Context | None = None
) -> None:
    """Raise UsageError if an argument, or an option's value, is empty text: mostly a script's variable that is not set.

    Looks at the words before they become paths, because the path of an empty text is the current folder. Lists of
    options (`-o`) may be empty, as mount(8) has it.
    """
    context = click.Context(command, info_name=name, parent=above)
    try:
        given, _, _ = command.make_parser(context).parse_args(list(arguments))
    except click.UsageError:
        return  # the command itself will say so
    for parameter in command.params:
        values = given.get(parameter.name or "")
        if isinstance(parameter, click.Option) and parameter.multiple:
            continue
        if "" in (values if isinstance(values, tuple | list) else (values,)):
            called = parameter.opts[0] if isinstance(parameter, click.Option) else parameter.human_readable_name
            called = called.strip("[].")
            raise click.UsageError(f"{called} is empty (is it a variable that is not set?)", context)


class Group(click.Group):
    """A group of commands, none of which takes an argument that is empty."""

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
    """Run a command line; gives what the command returned, or the code with which it left.

    `click.Command.main` would end the program quietly at any broken pipe, also of a connection.
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
    """One sentence about a command line that is wrong, to stand after `PROGRAM: `."""
    text = " ".join(error.format_message().split())
    if not isinstance(error, click.UsageError):
        return text
    where = error.ctx.command_path if error.ctx else program
    text = text.rstrip(".")
    text = _NUMBERS.sub(lambda found: f" is not {_NAMED[found[1]]}", text)
    text = text[:1].lower() + text[1:] if text[1:2].islower() or text[1:2] == " " else text
    return f"{text} (see: {where} --help)"


def flushed(code: int, program: str) -> int:
    """Write out what standard output still holds; gives the exit code, which says so if that fails.

    Afterwards nothing is left that the interpreter could stumble over at its end.
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
    """Forget what standard output could not take, and all that is written to it from here on."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
