"""Every error is one sentence and a documented exit code."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import click
import pytest

from dfs_server.shared.config_file import ConfigError
from dfsfuse.cli.output import OutputClosed
from dfsfuse.cli.reports import AlreadyReported, CommandError, Tally, local_errors, report
from dfsfuse.errors import AuthenticationError, IncompleteError, ReadOnlyError, UnavailableError


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (CommandError("cannot do it"), 1, "dfc: cannot do it\n"),
        (FileNotFoundError(errno.ENOENT, "No such file", b"/a\nb"), 1, "dfc: /a\\nb: No such file\n"),
        (OSError(errno.EPERM, "Not permitted"), 1, "dfc: Not permitted\n"),
        (click.UsageError("No such option: -x."), 2, "dfc: no such option: -x (see: dfc --help)\n"),
        (ConfigError("dfc.yaml: servers: found 3"), 2, "dfc: dfc.yaml: servers: found 3\n"),
        (IncompleteError("piece P1 is missing"), 3, "dfc: piece P1 is missing\n"),
        (AuthenticationError("DFS1 refused alice"), 4, "dfc: DFS1 refused alice\n"),
        (UnavailableError("no server answers"), 6, "dfc: no server answers\n"),
        (ReadOnlyError("two servers answer"), 7, "dfc: two servers answer\n"),
        (KeyboardInterrupt(), 130, "dfc: interrupted\n"),
        (click.Abort(), 130, "dfc: interrupted\n"),
        (OutputClosed(), 141, ""),
        (SystemExit(143), 143, ""),
        (AlreadyReported(3), 3, ""),
    ],
)
def test_errors(error: BaseException, code: int, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert report(error) == code
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", said)


def test_an_unexpected_exception_is_a_sentence_and_a_traceback_on_demand(
    capsys: pytest.CaptureFixture[str],
) -> None:
    error = ZeroDivisionError("first line\nsecond line")
    assert report(error) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "ZeroDivisionError: first line (" in said
    assert "--debug" in said
    report(error, debug=True)
    assert "second line" in capsys.readouterr().err


def test_local_errors_say_that_they_are_local() -> None:
    with (
        pytest.raises(CommandError, match=r"^local /no: No such file or directory$"),
        local_errors(Path("/no")),
    ):
        os.stat("/no")  # noqa: PTH116


def test_one_failure_does_not_stop_the_others_and_gives_the_exit_code(
    capsys: pytest.CaptureFixture[str],
) -> None:
    tally = Tally()
    done = []
    for error in (None, CommandError("first"), IncompleteError("second"), None):
        with tally.attempt():
            if error is not None:
                raise error
            done.append(True)
    assert len(done) == 2
    assert capsys.readouterr().err == "dfc: first\ndfc: second\n"
    with pytest.raises(AlreadyReported) as caught:
        tally.settle()
    assert caught.value.exit_code == 1
    Tally().settle()


@pytest.mark.parametrize("error", [ReadOnlyError("x"), AuthenticationError("x"), KeyboardInterrupt()])
def test_what_makes_all_others_fail_too_ends_the_command(error: BaseException) -> None:
    with pytest.raises(type(error)), Tally().attempt():
        raise error
