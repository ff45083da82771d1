"""Where a user's own files are: the home folder and the folders of the XDG base directory specification.

A process may have no home: HOME is not set (or empty, or relative) in cron jobs, containers and units, and a user
number need not have an entry in the passwd database. Then a folder is None, and the caller does without it or says so
in a sentence; nothing here raises because of that except `expanded`, which was asked for a home explicitly. A returned
folder need not exist, or be writable. Used by all three commands.
"""

from __future__ import annotations

import errno
import os
import pwd
from pathlib import Path

NO_HOME = "there is no home folder: HOME is not set, and this user has no entry in the passwd database"
_OWN = "dfsfuse"


def home() -> Path | None:
    """The user's home folder, or None."""
    named = os.environ.get("HOME", "")
    if named.startswith("/"):
        return Path(named)
    try:
        listed = pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:
        return None
    return Path(listed) if listed.startswith("/") else None


def expanded(path: str | Path) -> Path:
    """The path with a leading `~` or `~user` replaced as a shell would; an unknown user's stays unchanged.

    Raises FileNotFoundError if there is a `~` and no home.
    """
    text = os.fspath(path)
    if text != "~" and not text.startswith("~/"):
        return Path(os.path.expanduser(text))  # noqa: PTH111 (Path.expanduser raises RuntimeError for unknown users)
    at_home = home()
    if at_home is None:
        raise FileNotFoundError(errno.ENOENT, NO_HOME, text)
    return at_home / text[2:]


def config_folder() -> Path | None:
    """~/.config/dfsfuse, or None without a home."""
    at_home = home()
    return at_home / ".config" / _OWN if at_home else None


def state_folder() -> Path | None:
    """$XDG_STATE_HOME/dfsfuse, else ~/.local/state/dfsfuse, or None without a home."""
    return _base("XDG_STATE_HOME", ".local/state")


def data_folder() -> Path | None:
    """$XDG_DATA_HOME/dfsfuse, else ~/.local/share/dfsfuse, or None without a home."""
    return _base("XDG_DATA_HOME", ".local/share")


def _base(variable: str, below_home: str) -> Path | None:
    named = os.environ.get(variable, "")
    if named.startswith("/"):  # according to the specification, a relative one is ignored
        return Path(named) / _OWN
    at_home = home()
    return at_home / below_home / _OWN if at_home else None
