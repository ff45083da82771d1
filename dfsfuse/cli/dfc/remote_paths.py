"""Paths in a namespace as a person types them: text in, absolute normal bytes out.

The namespace's root is `/`, and a path without a leading slash is taken from there. `.` and `..` are resolved
textually, without asking a server; a `..` that would leave the root is refused rather than silently clamped.
"""

from __future__ import annotations

import errno
import os

from dfsfuse.cli.output import printable


def normal(path: str | bytes) -> bytes:
    """The absolute path without `.`, `..`, doubled or trailing slashes. Raises OSError (EINVAL)."""
    raw = os.fsencode(path)
    parts: list[bytes] = []
    for part in raw.split(b"/"):
        if part in (b"", b"."):
            continue
        if part != b"..":
            parts.append(part)
        elif parts:
            parts.pop()
        else:
            raise OSError(errno.EINVAL, "this path leads above the root folder", os.fsdecode(raw))
    if b"\0" in raw:
        raise OSError(errno.EINVAL, "a name cannot have a zero byte", printable(raw))
    return b"/" + b"/".join(parts)


def names_a_folder(path: str | bytes) -> bool:
    """Whether the text itself says that it means a folder (it ends in a slash or in `.`)."""
    last = os.fsencode(path).rsplit(b"/", 1)[-1]
    return last in (b"", b".", b"..")


def ends_in_dots(path: str | bytes) -> bool:
    """Whether the last name as typed is `.` or `..`: a folder identified by position, not by name."""
    return os.fsencode(path).rstrip(b"/").rsplit(b"/", 1)[-1] in (b".", b"..")


def base_name(path: bytes) -> bytes:
    """The last name of a normal path; empty for the root."""
    return path.rsplit(b"/", 1)[-1]


def parent(path: bytes) -> bytes:
    """The folder that a normal path is in; the root for the root."""
    return path.rsplit(b"/", 1)[0] or b"/"


def join(folder: bytes, name: bytes) -> bytes:
    """The path of a name in a folder, both normal."""
    return folder.rstrip(b"/") + b"/" + name


def is_inside(path: bytes, folder: bytes) -> bool:
    """Whether this normal path is the folder or below it."""
    return path == folder or path.startswith(folder.rstrip(b"/") + b"/")
