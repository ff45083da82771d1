"""What all commands share at their beginning and end. test_bare_environment.py tests processes with closed streams."""

from __future__ import annotations

import click
import pytest

from dfs_server.shared import command_line


@click.command()
@click.argument("paths", metavar="PATH...", nargs=-1)
@click.option("--against")
@click.option("-o", "lists", multiple=True)
def cli(paths: tuple[str, ...], against: str | None, lists: tuple[str, ...]) -> int:
    return len(paths)


@pytest.mark.parametrize(
    ("arguments", "what"),
    [([""], "PATH"), (["a", "", "b"], "PATH"), (["--against", ""], "--against"), (["--against="], "--against")],
)
def test_empty_text_is_refused_by_its_name(arguments: list[str], what: str) -> None:
    with pytest.raises(click.UsageError) as refusal:
        command_line.invoke(cli, arguments, "it")
    assert command_line.usage_sentence(refusal.value, "it") == (
        f"{what} is empty (is it a variable that is not set?) (see: it --help)"
    )


def test_lists_of_options_may_be_empty_and_the_outcome_is_given() -> None:
    assert command_line.invoke(cli, ["-o", "", "a", "b"], "it") == 2
    assert command_line.invoke(cli, ["--help"], "it") == 0


@click.command()
@click.argument("port", type=click.IntRange(0, 65535))
@click.option("--rate", type=click.FloatRange(min=0))
def numbers(port: int, rate: float | None) -> int:
    return port


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["x"], "invalid value for 'PORT': 'x' is not a whole number"),
        (["1", "--rate", "x"], "invalid value for '--rate': 'x' is not a number"),
        (["70000"], "invalid value for 'PORT': 70000 is not in the range 0<=x<=65535"),
    ],
)
def test_what_is_no_number_is_said_in_plain_words(arguments: list[str], said: str) -> None:
    with pytest.raises(click.UsageError) as refusal:
        command_line.invoke(numbers, arguments, "it")
    assert command_line.usage_sentence(refusal.value, "it") == f"{said} (see: it --help)"


def test_what_is_wrong_is_one_sentence() -> None:
    with pytest.raises(click.UsageError) as refusal:
        command_line.invoke(cli, ["--nonsense"], "it")
    sentence = command_line.usage_sentence(refusal.value, "it")
    assert sentence.startswith("no such option")
    assert sentence.endswith("(see: it --help)")
    assert "\n" not in sentence
    assert command_line.usage_sentence(click.UsageError("ROOT and PORT\nmust be given."), "it") == (
        "ROOT and PORT must be given (see: it --help)"
    )
