"""Completion by Tab."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import cast

import pytest
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document

from dfsfuse.cli.dfc.completion import DfcCompleter, split_line
from dfsfuse.cli.dfc.remote import Remote
from dfsfuse.errors import UnavailableError
from dfsfuse.vfs.attributes import Attributes


def attributes(ino: int, mode: int) -> Attributes:
    return Attributes(ino, mode, 1, 0, 0, 0, 0, 0, 0, 0, 0)


class FakeRemote:
    """Two folders: the root with a few names, and `/letters`."""

    def __init__(self) -> None:
        self.down = False
        self.folders = {
            b"/": [(b".hidden", 2), (b"a b", 3), (b"letters", 4), (b"lines\n", 5), (b"list.txt", 6)],
            b"/letters": [(b"one", 7), (b"two", 8)],
        }

    def existing(self, path: bytes) -> Attributes:
        if self.down:
            raise UnavailableError("no server answers")
        if path not in self.folders:
            raise FileNotFoundError
        return attributes(1, stat.S_IFDIR)

    def entries(self, folder: int, path: bytes) -> list[tuple[bytes, Attributes]]:
        return [
            (name, attributes(ino, stat.S_IFDIR if name == b"letters" else stat.S_IFREG))
            for name, ino in self.folders[path]
        ]


def offered(line: str, remote: FakeRemote | None = None) -> list[str]:
    completer = DfcCompleter(cast(Remote, remote or FakeRemote()), ["put", "get", "list", "mkdir", "rm", "help"])
    return [found.text for found in completer.get_completions(Document(line), CompleteEvent())]


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("", ["put", "get", "list", "mkdir", "rm", "help", "quit"]),
        ("L", ["list"]),
        ("help p", ["put"]),
        ("list l", ["letters/", "list.txt"]),
        ("LIST /letters/t", ["/letters/two"]),
        ("get a", ["'a b'"]),
        ("get 'a ", ["'a b'"]),
        ("get -r l", ["letters/", "list.txt"]),
        ("rm list.txt letters/", ["letters/one", "letters/two"]),
        ("rm .", [".hidden"]),
        ("list /nowhere/", []),
        ("list -", []),
        ("status l", []),
    ],
)
def test_commands_and_remote_paths(line: str, found: list[str]) -> None:
    assert offered(line) == found


def test_local_paths_where_the_command_takes_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "local file").touch()
    (tmp_path / "local folder").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert offered("put lo") == ["'local file'", "'local folder'/"]
    assert offered("put ~/lo") == ["~/'local file'", "~/'local folder'/"]
    assert offered("get list.txt lo") == ["'local file'", "'local folder'/"]
    assert offered("put x li") == ["list.txt"]


def test_servers_that_do_not_answer_offer_nothing() -> None:
    remote = FakeRemote()
    remote.down = True
    assert offered("list l", remote) == []


@pytest.mark.parametrize(
    ("text", "words", "last", "length"),
    [
        ("", [], "", 0),
        ("pu", [], "pu", 2),
        ("put ", ["put"], "", 0),
        ("put 'a b", ["put"], "a b", 4),
        ("put 'a b'", ["put"], "a b", 5),
        ("put 'a b' ", ["put", "a b"], "", 0),
        ("put a\\ b", ["put"], "a b", 4),
        ("put a  b", ["put", "a"], "b", 1),
    ],
)
def test_the_word_at_the_cursor(text: str, words: list[str], last: str, length: int) -> None:
    assert split_line(text) == (words, last, length)


def test_names_with_odd_bytes_are_not_offered() -> None:
    remote = FakeRemote()
    remote.folders = {b"/": [(b"caf\xe9", 2), (os.fsencode("café"), 3)]}
    assert offered("get c", remote) == ["'café'"]
