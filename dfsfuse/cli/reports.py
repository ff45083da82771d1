"""Turns an exception into one sentence and an exit code. The only place where dfc decides how an error is shown.

Every error is one line `dfc: SENTENCE` on standard error; a traceback is written only with `--debug`. The codes are
`dfsfuse.cli.exit_codes` and are documented in docs/cli.md.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from dfs_server.shared.command_line import usage_sentence
from dfs_server.shared.config_file import ConfigError
from dfsfuse.cli import exit_codes
from dfsfuse.cli.output import OutputClosed, complain, printable
from dfsfuse.errors import (
    AuthenticationError,
    DfsError,
    NoSpaceError,
    UnavailableError,
    WrongServerError,
)


class CommandError(Exception):
    """A command cannot do what it was asked to do, for the reason given in the text."""

    def __init__(self, sentence: str, exit_code: int = exit_codes.FAILED) -> None:
        super().__init__(sentence)
        self.exit_code = exit_code


class AlreadyReported(Exception):  # noqa: N818 (it is the end of a command, not an error of its own)
    """The command failed in part; its sentences have been written, and this is the exit code."""

    def __init__(self, exit_code: int) -> None:
        super().__init__(exit_code)
        self.exit_code = exit_code


# After one of these every further file would fail in the same way, so a command over many files ends.
HOPELESS = (AuthenticationError, WrongServerError, UnavailableError, NoSpaceError)


LISTED_MAX = 100
"""Maximum number of names that are repeated at the end of a command over many files."""


class Tally:
    """The outcome of a command over many files: a failure is reported, and the rest goes on."""

    def __init__(self) -> None:
        self._exit_code = exit_codes.DONE
        self._failed: list[str] = []

    @contextmanager
    def attempt(self, name: bytes | Path = b"") -> Iterator[None]:
        """Process one item. Any failure is reported here, except those that would make all other items fail too."""
        try:
            yield
        except (*HOPELESS, OutputClosed, click.Abort, click.exceptions.Exit):
            self._list_failed()
            raise
        except Exception as error:  # noqa: BLE001 (one failure must not end the rest)
            self.failed(error, name)

    def failed(self, error: Exception, name: bytes | Path = b"") -> None:
        """Report this failure; the exit code of the first one is the command's."""
        self.note(report(error), name)

    def note(self, exit_code: int, name: bytes | Path = b"") -> None:
        """Record a failure that has already been reported."""
        self._exit_code = self._exit_code or exit_code
        if name:
            self._failed.append(("local " if isinstance(name, Path) else "") + printable(name))

    def settle(self) -> None:
        """List the failures that have names. Raises `AlreadyReported` if anything failed."""
        self._list_failed()
        if self._exit_code:
            raise AlreadyReported(self._exit_code)

    def _list_failed(self) -> None:
        """List the failures again, together: their sentences may have scrolled by hours ago. A single one needs no
        list."""
        if len(self._failed) < 2:
            return
        complain(f"{len(self._failed)} were not copied:")
        for name in self._failed[:LISTED_MAX]:
            complain(f"  {name}")
        if len(self._failed) > LISTED_MAX:
            complain(f"  and {len(self._failed) - LISTED_MAX} more, which are named above")


@contextmanager
def local_errors(path: Path) -> Iterator[None]:
    """Turn an operating system error about a local path into a sentence that says that the path is local."""
    try:
        yield
    except OSError as error:
        raise CommandError(f"local {printable(path)}: {error.strerror or error}") from error


def report(error: BaseException, *, debug: bool = False) -> int:
    """Write what happened, and return the exit code. Never raises."""
    if debug and not isinstance(error, OutputClosed | AlreadyReported | click.exceptions.Exit | SystemExit):
        click.echo("".join(traceback.format_exception(error)).rstrip(), err=True)
    for line in sentences(error):
        complain(line)
    return exit_code(error)


def sentences(error: BaseException) -> list[str]:
    """What to say about an error: usually one sentence, or none if everything has been said."""
    match error:
        case AlreadyReported() | OutputClosed() | BrokenPipeError() | click.exceptions.Exit() | SystemExit():
            return []
        case KeyboardInterrupt() | click.Abort():
            return ["interrupted"]
        case click.ClickException():
            return [usage_sentence(error, "dfc")]
        case CommandError() | DfsError() | ConfigError():
            return [str(error)]
        case OSError(strerror=str(strerror), filename=str() | bytes() as name):
            return [f"{printable(name)}: {strerror}"]
        case OSError():
            return [error.strerror or str(error) or type(error).__name__]
        case _:
            text = str(error).splitlines()[0] if str(error) else "no further details"
            kind = type(error).__name__
            return [f"unexpected {kind}: {text} (this is a bug in dfc: run it with --debug and report the output)"]


def exit_code(error: BaseException) -> int:
    """The documented exit code of an error."""
    match error:
        case AlreadyReported() | CommandError() | click.exceptions.Exit():
            return error.exit_code
        case SystemExit(code=int(code)):
            return code
        # raised by click for its help; connections to servers never raise this here
        case OutputClosed() | BrokenPipeError():
            return exit_codes.OUTPUT_CLOSED
        case click.Abort():
            return exit_codes.INTERRUPTED
        case click.UsageError():
            return exit_codes.USAGE
        case _:
            return exit_codes.exit_code_of(error)
