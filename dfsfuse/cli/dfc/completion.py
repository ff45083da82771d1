"""Tab completion at the prompt: commands, remote paths and local paths.

Knows the order of the commands' arguments and nothing else about them. Runs on prompt_toolkit's thread; on any failure
(no server answers, no such folder) it silently offers nothing. Names that cannot be typed on one line (control
characters) are not offered.
"""

from __future__ import annotations

import io
import os
import shlex
import stat
from collections.abc import Iterable, Iterator, Sequence

from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document

from dfs_server.shared import homes
from dfsfuse.cli.dfc import remote_paths
from dfsfuse.cli.dfc.remote import Remote
from dfsfuse.errors import DfsError

MAX_OFFERED = 500
LOCAL_ARGUMENTS = {"put": (0,), "get": (1,)}  # all other arguments are remote paths
WITHOUT_PATHS = {"status", "help", "quit", "exit"}


class DfcCompleter(Completer):
    """Completes the word before the cursor."""

    def __init__(self, remote: Remote, commands: Sequence[str]) -> None:
        self._remote = remote
        self._commands = [*commands, "quit"]

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterator[Completion]:  # noqa: ARG002
        words, last, length = split_line(document.text_before_cursor)
        if not words or (len(words) == 1 and words[0].lower() == "help"):
            found: Iterable[tuple[str, bool]] = (
                (name, False) for name in self._commands if name.startswith(last.lower())
            )
        else:
            found = self._paths(words, last)
        for count, (text, is_folder) in enumerate(found):
            if count >= MAX_OFFERED:
                return
            shown = text.rstrip("/").rsplit("/", 1)[-1] + ("/" if is_folder else "")
            yield Completion(_quoted(text) + ("/" if is_folder else ""), start_position=-length, display=shown)

    def _paths(self, words: list[str], last: str) -> Iterator[tuple[str, bool]]:
        command = words[0].lower()
        if command in WITHOUT_PATHS or last.startswith("-"):
            return
        place = sum(1 for word in words[1:] if not word.startswith("-"))
        folder, slash, start = last.rpartition("/")
        try:
            if place in LOCAL_ARGUMENTS.get(command, ()):
                found = _local_names(folder + slash)
            else:
                found = self._remote_names(folder + slash)
            for name, is_folder in found:
                text = os.fsdecode(name)
                if text.startswith(start) and text.isprintable() and (start or not text.startswith(".")):
                    yield folder + slash + text, is_folder
        except (OSError, DfsError):
            return

    def _remote_names(self, folder: str) -> list[tuple[bytes, bool]]:
        path = remote_paths.normal(folder)
        inode = self._remote.existing(path).ino
        return [(name, stat.S_ISDIR(found.mode)) for name, found in self._remote.entries(inode, path)]


def split_line(text: str) -> tuple[list[str], str, int]:
    """The words before the one at the cursor, that word without its quotes, and its length as typed."""
    stream = io.StringIO(text)
    lexer = shlex.shlex(stream, posix=True)
    lexer.whitespace_split = True
    lexer.commenters = ""
    words: list[str] = []
    ends: list[int] = [0]
    try:
        for word in lexer:
            words.append(word)
            ends.append(stream.tell())
    except ValueError:  # an unclosed quote: the word at the cursor begins with it
        start = ends[-1]
        typed = text[start:].lstrip()
        return words, typed.lstrip("'\""), len(typed)
    if not words or (text[-1:].isspace() and not text.endswith("\\ ")):
        return words, "", 0
    start = ends[-2]
    typed = text[start:].lstrip()
    return words[:-1], words[-1], len(typed)


def _local_names(folder: str) -> list[tuple[bytes, bool]]:
    return sorted((os.fsencode(path.name), path.is_dir()) for path in homes.expanded(folder).iterdir())


def _quoted(text: str) -> str:
    """A path as it must be typed. A leading `~/` stays outside the quotes, so that it is expanded."""
    return "~/" + shlex.quote(text[2:]) if text.startswith("~/") and len(text) > 2 else shlex.quote(text)
