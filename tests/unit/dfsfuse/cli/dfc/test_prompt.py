"""The prompt, with lines from a pipe. tests/integration/test_dfc_prompt.py tests it on a terminal."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.memory_dfc import Dfc

from dfs_server.shared import homes
from dfsfuse.cli.dfc import prompt
from dfsfuse.cli.dfc.app import cli
from dfsfuse.cli.dfc.client import Client
from dfsfuse.cli.dfc.remote import Remote

ENTRIES = Remote.entries


def test_commands_from_a_pipe_with_the_prompt_printed(dfc: Dfc) -> None:
    (dfc.here / "notes.txt").write_bytes(b"x")
    outcome = dfc(stdin=b"PUT notes.txt\nLIST\nGET notes.txt copy\nquit\nlist\n")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out == "dfc> dfc> notes.txt\ndfc> dfc> "
    assert (dfc.here / "copy").read_bytes() == b"x"
    assert dfc.access.connections == 1


@pytest.mark.parametrize("script", [b"", b"\n", b"  \n\n", b"exit\n", b"EXIT", b"Quit\n", b"  bye  "])
def test_the_end_of_the_input_or_a_word_ends_it(dfc: Dfc, script: bytes) -> None:
    outcome = dfc(stdin=script)
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.startswith("dfc> ")


@pytest.mark.parametrize("word", ["exit", "quit", "BYE"])
def test_leaving_takes_no_arguments(dfc: Dfc, word: str) -> None:
    outcome = dfc(stdin=f"{word} now\nmkdir after\n".encode())
    assert outcome.err == f"dfc: {word} takes no arguments: type it alone to leave the prompt\n"
    assert outcome.code == 2
    assert dfc.ok("list") == "after\n"


def test_an_error_never_ends_it_and_the_last_failure_is_the_exit_code(dfc: Dfc) -> None:
    script = b"frobnicate\nget nothing\nput 'unclosed\nmkdir a\nput\nlist --nonsense\nls\nrm nothing\nmkdir b\n"
    outcome = dfc(stdin=script)
    assert outcome.code == 1
    said = [
        ("no such command 'frobnicate'", "(see: dfc --help)"),
        ("/nothing: ", "No such file or directory"),
        ("no closing quotation", "put quotes around a name as in a shell"),
        ("missing argument 'LOCAL'", "(see: dfc put --help)"),
        ("no such option", "(see: dfc list --help)"),
        ("/nothing: ", "No such file or directory"),
    ]
    for line, (begin, end) in zip(outcome.err.splitlines(), said, strict=True):
        assert line.startswith(f"dfc: {begin}")
        assert line.endswith(end)
    assert outcome.out.endswith("dfc> a\ndfc> dfc> dfc> \n")
    assert dfc.ok("list") == "a\nb\n"
    assert dfc(stdin=b"rm nothing\nbad 'quote\nlist\n").code == 2


def test_a_mistake_of_ours_does_not_end_it(dfc: Dfc, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_arguments: object) -> None:
        raise ZeroDivisionError("oh")

    monkeypatch.setattr(Remote, "entries", fail)
    outcome = dfc(stdin=b"list\nmkdir after\n")
    assert outcome.code == 1
    assert outcome.err.startswith("dfc: unexpected ZeroDivisionError: oh (")
    monkeypatch.setattr(Remote, "entries", ENTRIES)
    assert dfc.ok("list") == "after\n"


def test_ctrl_c_ends_a_script(dfc: Dfc, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Remote, "entries", interrupt)
    outcome = dfc(stdin=b"list\nmkdir after\n")
    assert (outcome.code, outcome.err) == (130, "\ndfc: interrupted\n")
    monkeypatch.setattr(Remote, "entries", ENTRIES)
    assert dfc.ok("list") == ""
    dfc.access.open -= 1  # after Ctrl-C the program ends without closing the connection


def test_ctrl_c_on_a_terminal_ends_the_command_or_the_line_only(dfc: Dfc, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: Iterator[str | type[BaseException] | None] = iter(["list", KeyboardInterrupt, "mkdir after", None])

    def read_line() -> str | None:
        line = next(lines)
        if isinstance(line, type):
            raise line
        return line

    monkeypatch.setattr(Remote, "entries", interrupt)
    client = Client(lambda _config: dfc.access)
    with cli.make_context("dfc", [], obj=client) as ctx:
        assert prompt.converse(ctx, client, read_line, on_terminal=True) == 130
    client.close()
    monkeypatch.setattr(Remote, "entries", ENTRIES)
    assert dfc.ok("list") == "after\n"


def interrupt(*_arguments: object) -> None:
    raise KeyboardInterrupt


def test_names_with_blanks_and_odd_bytes(dfc: Dfc) -> None:
    (dfc.here / "a b").write_bytes(b"x")
    (dfc.here / os.fsdecode(b"caf\xe9")).write_bytes(b"y")
    outcome = dfc(stdin=b"put 'a b'\nput caf\xe9\r\nlist\n")
    assert (outcome.code, outcome.err) == (0, "")
    assert "a b\ncaf\\351\n" in outcome.out


def test_help(dfc: Dfc) -> None:
    outcome = dfc(stdin=b"help\nhelp PUT\nput --help\nhelp nonsense\n")
    assert outcome.code == 2
    for word in ("put ", "status ", "quit ", "Usage: dfc put [OPTIONS] LOCAL [REMOTE]"):
        assert word in outcome.out
    assert outcome.out.count("Usage: dfc put") == 2


def test_a_tilde_is_home_and_standard_input_is_taken(dfc: Dfc, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "file").write_bytes(b"x")
    outcome = dfc(stdin=b"put ~/file\nput - name\nget file ~/copy\nget file -\n")
    assert outcome.err.count("\n") == 1
    assert "standard input" in outcome.err
    assert (tmp_path / "home" / "copy").read_bytes() == b"x"
    assert "dfc> x" in outcome.out


def test_the_history_is_ones_own_and_may_be_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    assert homes.state_folder() == tmp_path / "state" / "dfsfuse"
    prompt.history().append_string("list")
    path = tmp_path / "state" / "dfsfuse" / "dfc_history"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert "list" in path.read_text()
    monkeypatch.setenv("XDG_STATE_HOME", "/proc/nowhere")
    prompt.history().append_string("list")
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert homes.state_folder() == tmp_path / ".local" / "state" / "dfsfuse"
