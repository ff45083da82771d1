"""list, mkdir, rm and mv."""

from __future__ import annotations

import json
import os
import re

import pytest
from support.memory_dfc import Dfc

from dfsfuse.cli.dfc.app import cli
from dfsfuse.data.placement import rotation_of

DATA_OF_ROTATION = {rotation_of(data): data for data in (bytes([letter]) * 100 for letter in range(40))}


def test_lists_are_sorted_one_name_a_line_and_escaped(dfc: Dfc) -> None:
    for name in ("b", "a\nb", "A", os.fsdecode(b"\xff")):
        dfc.ok("put", "-", name, stdin=b"x")
    dfc.ok("mkdir", "folder")
    assert dfc.ok("list") == "A\na\\nb\nb\nfolder\n\\377\n"
    assert dfc.ok("list", "/folder/../b") == "b\n"


def test_r_lists_paths_folder_by_folder(dfc: Dfc) -> None:
    dfc.ok("mkdir", "-p", "a/b/c", "a-b")
    dfc.ok("put", "-", "a/b/file", stdin=b"")
    assert dfc.ok("list", "-r").splitlines() == ["a", "a/b", "a/b/c", "a/b/file", "a-b"]
    assert dfc.ok("list", "-r", "a").splitlines() == ["b", "b/c", "b/file"]


def test_of_several_paths_each_folder_has_a_heading_as_with_ls(dfc: Dfc) -> None:
    dfc.ok("mkdir", "-p", "A/sub", "B", "empty")
    for name in ("A/sub/x", "B/x", "B/y", "file"):
        dfc.ok("put", "-", name, stdin=b"x")
    assert dfc.ok("list", "-r", "A", "B") == "/A:\nsub\nsub/x\n\n/B:\nx\ny\n"
    assert dfc.ok("list", "A", "B/y", "empty", "file") == "y\nfile\n\n/A:\nsub\n\n/empty:\n"
    assert dfc.ok("list", "A", "A").count("/A:") == 2
    one_is_missing = dfc("list", "nothing", "B")
    assert (one_is_missing.code, one_is_missing.out) == (1, "/B:\nx\ny\n")
    for option in ("-l", "--where"):
        lines = dfc.ok("list", option, "A", "file", "B").splitlines()
        heads = [number for number, line in enumerate(lines) if line in ("/A:", "/B:")]
        assert [lines[number - 1] for number in heads] == ["", ""]
        assert [line.split()[-1] for line in lines if "x" in line[-1:] or "y" in line[-1:]] == ["x", "y"]
    assert [entry["path"] for entry in json.loads(dfc.ok("list", "--json", "A", "B"))] == ["/A/sub", "/B/x", "/B/y"]


def test_l_has_aligned_columns(dfc: Dfc) -> None:
    dfc.ok("put", "-", "file", stdin=b"x" * 3_250_000)
    dfc.ok("put", "-", "tiny", stdin=b"x")
    dfc.ok("mkdir", "folder")
    lines = dfc.ok("list", "-l").splitlines()
    date = r"\d{4}-\d\d-\d\d \d\d:\d\d"
    assert re.fullmatch(rf"-rw-r--r--  3\.1M  {date}  complete  file", lines[0])
    assert re.fullmatch(rf"drwxr-xr-x     -  {date}  -         folder", lines[1])
    assert re.fullmatch(rf"-rw-r--r--     1  {date}  complete  tiny", lines[2])


def test_folders_are_marked_on_a_terminal_and_on_demand(dfc: Dfc, monkeypatch: pytest.MonkeyPatch) -> None:
    dfc.ok("mkdir", "-p", "folder/sub")
    dfc.ok("put", "-", "file", stdin=b"x")
    dfc.ok("put", "-", "folder/a", stdin=b"x")
    plain = "file\nfolder\nfolder/a\nfolder/sub\n"
    marked = "file\nfolder/\nfolder/a\nfolder/sub/\n"
    assert dfc.ok("list", "-r") == plain  # names are unchanged in a pipe, for scripts
    assert dfc.ok("list", "-rp") == marked
    for options in (["-l"], ["--where"], ["-l", "--where"]):
        lines = dfc.ok("list", "-p", *options).splitlines()
        assert [line.split()[-1] for line in lines][-2:] == ["file", "folder/"]
    terminal = dfc("list", "-r", on_terminal=True)
    assert (terminal.code, terminal.out) == (0, marked)
    assert json.loads(dfc.ok("list", "-p", "--json"))[1]["name"] == "folder"


def test_where_keeps_folders_and_links(dfc: Dfc) -> None:
    dfc.ok("mkdir", "folder")
    (dfc.here / "link").symlink_to("folder")
    dfc.ok("put", "-r", ".", "/here")
    assert dfc.ok("list", "--where").splitlines()[1:] == [
        "-     -     -     -            -  -       folder",
        "-     -     -     -            -  -       here",
    ]
    assert dfc.ok("list", "--where", "here").splitlines()[1].split() == ["-"] * 6 + ["link", "->", "folder"]


def test_where_shows_the_missions_table(dfc: Dfc) -> None:
    dfc.ok("put", "-", "file", stdin=os.urandom(1000))
    dfc.ok("put", "-", "empty", stdin=b"")
    header, empty, line = dfc.ok("list", "--where").splitlines()
    assert header.split() == ["DFS1", "DFS2", "DFS3", "DFS4", "SEGMENTS", "HEALTH", "NAME"]
    assert empty.split() == ["-", "-", "-", "-", "0", "complete", "empty"]
    cells = line.split()
    assert sorted(cells[:4]) == ["1,2", "2,3", "3,4", "4,1"]
    assert cells[4:] == ["1", "complete", "file"]


def test_incomplete_files_are_marked(dfc: Dfc) -> None:
    dfc.ok("put", "-", "lost\n", stdin=DATA_OF_ROTATION[0])
    dfc.ok("put", "-", "good", stdin=DATA_OF_ROTATION[0])
    dfc.ok("mkdir", "folder")
    dfc.access.segments.answering = {2, 4}
    assert dfc.ok("list") == "folder\ngood\nlost\\n\n"
    dfc.access.segments.answering = {3, 4}
    assert dfc.ok("list") == "folder\ngood [incomplete]\nlost\\n [incomplete]\n"
    assert dfc.ok("list", "good") == "good [incomplete]\n"
    assert dfc.ok("list", "-l").splitlines()[1].endswith("incomplete  good [incomplete]")
    facts = json.loads(dfc.ok("list", "--json"))
    assert [entry.get("health") for entry in facts] == [None, "incomplete", "incomplete"]
    assert [entry["name"] for entry in facts] == ["folder", "good", "lost\n"]
    assert facts[1]["where"] == [{"segments": 1, "servers": {"DFS1": [], "DFS2": [], "DFS3": [3, 4], "DFS4": [1, 4]}}]
    outcome = dfc("get", "good [incomplete]")
    assert (outcome.code, outcome.out) == (3, "File is incomplete\n")
    assert list(dfc.here.iterdir()) == []


def test_health_words(dfc: Dfc) -> None:
    dfc.ok("put", "-", "file", stdin=b"x")
    for answering, word in (({1, 2, 3, 4}, "complete"), ({1, 3}, "degraded"), (set(), "incomplete")):
        dfc.access.segments.answering = set(answering)
        assert dfc.ok("list", "-l").split()[4] == word
        assert f"health    {word}" in dfc.ok("stat", "file")


def test_json_is_exact_and_carries_any_name(dfc: Dfc) -> None:
    dfc.ok("put", "-", os.fsdecode(b"caf\xe9"), stdin=b"x" * 12345)
    text = dfc.ok("list", "--json")
    assert text.isascii()
    (facts,) = json.loads(text)
    assert facts["size"] == 12345
    assert facts["name_b64"] == "Y2Fm6Q=="
    assert facts["path_b64"] == "L2NhZuk="
    assert json.loads(dfc.ok("list", "--json", "-r", "/")) == [facts]
    dfc.ok("rm", os.fsdecode(b"caf\xe9"))
    assert json.loads(dfc.ok("list", "--json")) == []


def test_what_is_not_there_is_said_and_the_rest_is_listed(dfc: Dfc) -> None:
    dfc.ok("put", "-", "file", stdin=b"")
    outcome = dfc("list", "nothing", "file", "..")
    assert (outcome.code, outcome.out) == (1, "file\n")
    assert outcome.err.splitlines() == [
        "dfc: /nothing: No such file or directory",
        "dfc: ..: this path leads above the root folder",
    ]


def test_mkdir(dfc: Dfc) -> None:
    dfc.ok("mkdir", "a", "a/b")
    assert dfc("mkdir", "a").err == "dfc: /a: File exists\n"
    assert dfc("mkdir", "x/y").err == "dfc: /x/y: No such file or directory\n"
    dfc.ok("mkdir", "-p", "a", "x/y/z", "/")
    assert dfc.ok("list", "-r") == "a\na/b\nx\nx/y\nx/y/z\n"
    dfc.ok("put", "-", "file", stdin=b"")
    assert dfc("mkdir", "-p", "file/below").err.endswith("Not a directory\n")


def test_rm(dfc: Dfc) -> None:
    dfc.ok("mkdir", "-p", "a/b", "c")
    dfc.ok("put", "-", "a/file", stdin=b"x")
    outcome = dfc("rm", "a", "c", "nothing", "a/file")
    assert outcome.code == 1
    assert outcome.err.splitlines() == [
        "dfc: /a is a folder: use -r",
        "dfc: /c is a folder: use -r",
        "dfc: /nothing: No such file or directory",
    ]
    dfc.ok("rm", "-r", "a")
    assert dfc.ok("list", "-r") == "c\n"
    dfc.ok("rm", "-f", "nothing", "nothing/below", "c/nothing")
    dfc.ok("rm", "-rf", "nothing", "c")
    assert dfc.ok("list", "-r") == ""


def test_the_root_is_not_emptied_by_mistake(dfc: Dfc) -> None:
    dfc.ok("mkdir", "-p", "d/e")
    for text in ("/", ".", "//", "d/..", "/d/../", "./"):
        outcome = dfc("rm", "-r", text)
        assert outcome.code == 1
        assert outcome.err.startswith(f"dfc: {text} would remove everything")
        assert outcome.err.endswith("nothing was removed (use --all if you mean it)\n")
        assert dfc("rm", "--all", text).err.endswith("use -r\n")
        assert "there is no terminal to ask on, and nothing was removed" in dfc("rm", "-r", "--all", text).err
    assert dfc("rm", "-rf", "/").code == 1
    outcome = dfc("rm", "-r", "d/e/..", "d/e/.")
    assert outcome.err.splitlines() == [
        "dfc: d/e/.. is refused, because it ends in . or ..: name /d",
        "dfc: d/e/. is refused, because it ends in . or ..: name /d/e",
    ]
    assert dfc.ok("list", "-r") == "d\nd/e\n"
    dfc.ok("rm", "-rf", "--all", ".")
    assert dfc.ok("list") == ""


ARGUMENTS = {
    "put": ["-r", "here"],
    "get": ["d"],
    "list": ["d"],
    "mkdir": ["-p", "x"],
    "rm": ["-r", "d"],
    "mv": ["d", "e"],
    "stat": ["d"],
    "verify": ["--against", "here", "d"],
    "heal": ["d"],
    "help": ["put"],
    "recover": ["20261130T125334Z-1"],
}


def test_the_table_of_arguments_has_every_command_that_takes_any() -> None:
    takes_paths = {
        name for name, command in cli.commands.items() if any(p.param_type_name == "argument" for p in command.params)
    }
    assert set(ARGUMENTS) == takes_paths


@pytest.mark.parametrize("command", ARGUMENTS)
def test_an_empty_argument_is_refused(dfc: Dfc, command: str) -> None:
    """An unset variable in a script must not mean the root or the current folder."""
    (dfc.here / "here").mkdir()
    dfc.ok("mkdir", "d")
    words = ARGUMENTS[command]
    for place in [place for place, word in enumerate(words) if not word.startswith("-")]:
        arguments = [*words[:place], "", *words[place + 1 :]]
        outcome = dfc(command, *arguments)
        assert (outcome.code, outcome.out) == (2, "")
        assert outcome.err.endswith(f"is empty (is it a variable that is not set?) (see: dfc {command} --help)\n")
        line = " ".join(word or "''" for word in [command, *arguments])
        at_prompt = dfc(stdin=f"{line}\n".encode())
        assert at_prompt.code == 2
        assert at_prompt.err == outcome.err or command == "help"  # a command of the prompt itself
    assert dfc.ok("list") == "d\n"


def test_mv(dfc: Dfc) -> None:
    dfc.ok("mkdir", "-p", "a/b", "c")
    dfc.ok("put", "-", "file", stdin=b"x")
    dfc.ok("put", "-", "other", stdin=b"y")
    dfc.ok("mv", "file", "other")
    assert dfc.ok("get", "other", "-") == "x"
    dfc.ok("mv", "other", "c")
    dfc.ok("mv", "a", "c/")
    dfc.ok("mv", "c/a", "folder/")
    assert dfc.ok("list", "-r") == "c\nc/other\nfolder\nfolder/b\n"
    assert "into itself" in dfc("mv", "folder", "folder/b").err
    assert "into itself" in dfc("mv", "/", "c").err
    assert dfc("mv", "nothing", "x").err == "dfc: /nothing: No such file or directory\n"
    assert "not an existing folder" in dfc("mv", "c/other", "nowhere/").err
    dfc.ok("mv", "c/other", "c/other")
    assert dfc.ok("list", "c") == "other\n"


def test_long_and_where_together_show_both(dfc: Dfc) -> None:
    dfc.ok("put", "-", "file", stdin=b"x" * 2000)
    dfc.ok("mkdir", "folder")
    head, file, folder = dfc.ok("list", "-l", "--where").splitlines()
    assert head.split() == ["MODE", "SIZE", "CHANGED", "DFS1", "DFS2", "DFS3", "DFS4", "SEGMENTS", "HEALTH", "NAME"]
    assert file.startswith("-rw") and "2.0K" in file and file.endswith("1  complete  file")
    assert folder.startswith("drwx") and folder.endswith("-  -         folder")
