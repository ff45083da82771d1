"""The command line as a whole: options, names of commands, errors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.memory_dfc import Dfc

import dfsfuse
from dfsfuse.cli.dfc.app import cli
from dfsfuse.errors import AuthenticationError, UnavailableError


def test_help_needs_no_servers(dfc: Dfc) -> None:
    dfc.access.refusal = AssertionError("no command may connect here")
    text = dfc.ok("--help")
    for name in cli.commands:
        assert f"\n  {name} " in text
        assert "Usage: dfc" in dfc.ok(name, "--help")
    assert dfc.ok("--version") == f"dfc {dfsfuse.__version__}\n"


@pytest.mark.parametrize(
    "arguments",
    [["frobnicate"], ["put"], ["put", "--what", "x"], ["list", "-x"], ["--nonsense"], ["mv", "a"]],
)
def test_wrong_command_lines_are_one_sentence_and_code_2(dfc: Dfc, arguments: list[str]) -> None:
    outcome = dfc(*arguments)
    assert outcome.code == 2
    assert outcome.out == ""
    assert outcome.err.startswith("dfc: ")
    assert outcome.err.count("\n") == 1
    assert dfc.access.connections == 0


@pytest.mark.parametrize("name", cli.commands)
def test_each_command_names_its_own_help_when_an_option_is_wrong(dfc: Dfc, name: str) -> None:
    outcome = dfc(name, "--nonsense")
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err == f"dfc: no such option '--nonsense' (see: dfc {name} --help)\n"
    assert dfc.access.connections == 0


@pytest.mark.parametrize("name", ["list", "LIST", "List", "ls", "LS"])
def test_commands_in_any_case(dfc: Dfc, name: str) -> None:
    dfc.ok("mkdir", "folder")
    assert dfc.ok(name) == "folder\n"


def test_the_config_is_named_by_option(dfc: Dfc) -> None:
    dfc.ok("--config", "some/dfc.yaml", "list")
    assert dfc.access.config == Path("some/dfc.yaml")


@pytest.mark.parametrize(
    ("refusal", "code"),
    [
        (AuthenticationError("DFS2 (127.0.0.1:10002) refuses the user alice"), 4),
        (UnavailableError("no server answers"), 6),
    ],
)
def test_servers_that_refuse_or_are_missing(dfc: Dfc, refusal: Exception, code: int) -> None:
    dfc.access.refusal = refusal
    (dfc.here / "file").touch()
    for arguments in (["list"], ["put", "file"], ["get", "file"], [], ["rm", "x"]):
        outcome = dfc(*arguments)
        assert (outcome.code, outcome.out, outcome.err) == (code, "", f"dfc: {refusal}\n")


def test_a_mistake_of_ours_is_a_sentence_and_a_traceback_on_demand(dfc: Dfc) -> None:
    dfc.access.refusal = ZeroDivisionError("oh")
    outcome = dfc("list")
    assert (outcome.code, outcome.err.count("\n")) == (1, 1)
    assert "Traceback" not in outcome.err
    assert "Traceback" in dfc("--debug", "list").err


def test_status(dfc: Dfc) -> None:
    assert "\nAll servers answer: reading and writing work, and any one server may fail.\n" in dfc.ok("status")
    dfc.access.segments.answering = {1, 2}
    assert dfc("status").code == 7
    outcome = dfc("status", "--json")
    assert outcome.code == 7
    facts = json.loads(outcome.out)
    assert facts["access"] == "read-only"
    assert [server["answers"] for server in facts["servers"]] == [True, True, False, False]
    dfc.access.refusal = UnavailableError("no server answers")
    outcome = dfc("status")
    assert outcome.code == 6
    assert outcome.out.count("connection refused") == 4
    assert outcome.err == "dfc: start the servers, or correct their addresses in the client's config\n"
    assert dfc.access.connections == 0


def test_stat_of_a_folder_a_file_and_a_link(dfc: Dfc) -> None:
    dfc.ok("put", "-", "file", stdin=b"x" * 2000)
    text = dfc.ok("stat", "/file")
    assert "2000 bytes (2.0K)" in text
    assert "complete" in text
    facts = json.loads(dfc.ok("stat", "--json", "file"))
    assert (facts["type"], facts["size"], facts["health"], facts["path"]) == (
        "file",
        2000,
        "complete",
        "/file",
    )
    assert [layout["segments"] for layout in facts["where"]] == [1]
    assert json.loads(dfc.ok("stat", "--json", "/"))["type"] == "folder"
    assert "folder" in dfc.ok("stat", "/")
    outcome = dfc("stat", "nothing")
    assert (outcome.code, outcome.err) == (1, "dfc: /nothing: No such file or directory\n")


def test_help_is_a_command_too(dfc: Dfc) -> None:
    assert dfc.ok("help") == dfc.ok("--help")
    assert dfc.ok("HELP", "Put") == dfc.ok("put", "--help")
    assert dfc.ok("help", "ls") == dfc.ok("list", "--help")
    outcome = dfc("help", "frobnicate")
    assert outcome.code == 2
    assert outcome.err.startswith("dfc: no such command 'frobnicate'")
    assert dfc.access.connections == 0
