"""dfc's output: names that stay on one line, sizes, aligned tables, JSON, error sentences.

Knows the terminal's two streams and nothing of servers or files. Names are bytes; the output is always valid text, one
line per name, on a terminal and in a pipe alike, so that no name can break a script or a terminal. A reader that goes
away (`dfc list | head -1`) raises `OutputClosed`, which is not an error.
"""

from __future__ import annotations

import base64
import errno
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import click

_ESCAPES = {
    "\\": "\\\\",
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
    "\a": "\\a",
    "\b": "\\b",
    "\f": "\\f",
    "\v": "\\v",
}
_UNITS = "KMGTPE"


class OutputClosed(Exception):  # noqa: N818 (it is the end of a pipe, not an error)
    """The reader of our standard output has gone."""


def printable(name: bytes | str | Path) -> str:
    """A name as `ls -b` writes it: control characters, unprintable bytes and the backslash escaped, the rest unchanged.

    The escaping is unambiguous, and the result is printable, without line breaks or surrogates.
    """
    text = os.fsdecode(name)
    if text.isprintable() and "\\" not in text:
        return text
    return "".join(_escaped(character) for character in text)


def _escaped(character: str) -> str:
    if character in _ESCAPES:
        return _ESCAPES[character]
    if character.isprintable():
        return character
    return "".join(f"\\{byte:03o}" for byte in os.fsencode(character))


def human_size(size: int) -> str:
    """A size in bytes as `ls -h` writes it, rounded up: 0, 1023, 1.0K, 9.9M, 12G."""
    if size < 1024:
        return str(size)
    power = next((power for power in range(1, len(_UNITS)) if size <= 999 * 1024**power), len(_UNITS))
    divisor, unit = 1024**power, _UNITS[power - 1]
    tenths = -(-size * 10 // divisor)
    return f"{tenths // 10}.{tenths % 10}{unit}" if tenths < 100 else f"{-(-size // divisor)}{unit}"


def counted(number: int, what: str) -> str:
    """A number of things, as in a sentence: 1 file, 2 files."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def local_time(ns: int) -> str:
    """A moment in nanoseconds since the epoch, in local time, to the minute."""
    try:
        return time.strftime("%Y-%m-%d %H:%M", time.localtime(ns // 1_000_000_000))
    except (OverflowError, ValueError, OSError):
        return "?"


def iso_time(ns: int) -> str | None:
    """A moment in nanoseconds since the epoch as ISO 8601 in UTC, or None if it is out of range."""
    seconds, rest = divmod(ns, 1_000_000_000)
    try:
        return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{rest:09d}Z"
    except (OverflowError, ValueError, OSError):
        return None


def json_text(key: str, name: bytes) -> dict[str, str]:
    """A name for JSON: text, plus `<key>_b64` with the raw bytes if it is not UTF-8."""
    text = os.fsdecode(name)
    try:
        name.decode("utf-8")
    except UnicodeDecodeError:
        return {key: text, f"{key}_b64": base64.b64encode(name).decode("ascii")}
    return {key: text}


def table(rows: Iterable[Sequence[str]], *, header: Sequence[str] | None = None, right: str = "") -> list[str]:
    """Rows as lines with aligned columns. `right` has an `r` for each column that is aligned to the right.

    The last column is not padded, so that no line ends in blanks.
    """
    from rich.cells import cell_len

    all_rows = [list(row) for row in rows]
    if header is not None:
        all_rows.insert(0, list(header))
    if not all_rows:
        return []
    widths = [max(cell_len(row[column]) for row in all_rows) for column in range(len(all_rows[0]))]
    lines = []
    for row in all_rows:
        cells = []
        for column, cell in enumerate(row):
            blanks = " " * (widths[column] - cell_len(cell))
            cells.append(blanks + cell if right[column : column + 1] == "r" else cell + blanks)
        lines.append("  ".join(cells).rstrip())
    return lines


def write_lines(lines: Iterable[str]) -> None:
    """Write lines to standard output. Raises `OutputClosed`."""
    text = "".join(f"{line}\n" for line in lines)
    if text:
        _guarded(text, newline=False)


def write_line(line: str) -> None:
    """Write one line to standard output. Raises `OutputClosed`."""
    _guarded(line, newline=True)


def write_json(value: object) -> None:
    """Write a value as JSON, in ASCII (surrogates escaped), to standard output; a list gets one item per line.

    Raises `OutputClosed`.
    """
    if isinstance(value, list) and value:
        text = "[\n" + ",\n".join(json.dumps(item) for item in value) + "\n]"
    else:
        text = json.dumps(value)
    _guarded(text, newline=True)


def write_bytes(data: bytes) -> None:
    """Write raw bytes to standard output. Raises `OutputClosed`, and OSError if they cannot be written."""
    with _standard_output():
        stream = sys.stdout.buffer
        stream.write(data)
        stream.flush()


def complain(sentence: str) -> None:
    """Write one sentence about an error to standard error."""
    try:
        click.echo(f"dfc: {sentence}", err=True)
    except OSError:  # nobody is listening
        return


def _guarded(text: str, *, newline: bool) -> None:
    with _standard_output():
        click.echo(text, nl=newline)


@contextmanager
def _standard_output() -> Iterator[None]:
    """Errors in this block are about standard output: its reader has gone, or it is closed, full or broken."""
    try:
        yield
    except BrokenPipeError as error:
        raise OutputClosed from error
    except OSError as error:
        number = error.errno if error.errno is not None else errno.EIO
        raise OSError(number, error.strerror or str(error), "standard output") from error
