"""Where this user's processes keep small files: the first usable folder.

The state folder in the user's home is used if possible. A process may have no home (HOME is not set, and the user
number has no entry in the passwd database), its home may not be writable, or a mount may be about to cover it; then the
runtime folder ($XDG_RUNTIME_DIR, or /run/user/UID) is used, and as a last resort one in /tmp. A folder that another
user owns or can write to is never used. Files are looked for in all of them, since a later command may have a different
environment. No threads, no state.
"""

from __future__ import annotations

import os
import pwd
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from dfs_server.shared import homes
from dfsfuse.mount import covering
from dfsfuse.mount.errors import MountpointError

_OWN = "dfsfuse"


def candidates() -> Iterator[Path]:
    """All possible folders, the best first."""
    state = homes.state_folder()
    if state is not None:
        yield state
    user = os.geteuid()
    if user == 0:
        yield Path("/run") / _OWN
        return
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    yield Path(runtime if runtime.startswith("/") else f"/run/user/{user}") / _OWN
    yield Path(f"/tmp/{_OWN}-{user}")


def of_user(user: int) -> Iterator[Path]:
    """The same for another user, as far as it can be guessed, since that user's environment is not known."""
    with suppress(KeyError):
        yield Path(pwd.getpwuid(user).pw_dir) / ".local/state" / _OWN
    yield Path(f"/run/user/{user}") / _OWN
    yield Path(f"/tmp/{_OWN}-{user}")


def is_own(folder: Path) -> bool:
    """Whether the folder exists, and neither it nor a link in its place belongs to another user."""
    try:
        return {folder.stat().st_uid, folder.lstat().st_uid} == {os.geteuid()}
    except OSError:
        return False


def ensure_own(folder: Path) -> None:
    """Create the folder, if it does not exist. Raises OSError, also if it belongs to another user."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not is_own(folder):
        raise PermissionError(0, "another user owns it")


def usable(mountpoint: Path, *names: str) -> Path:
    """The first candidate that is writable and not covered by a mount at `mountpoint`, or `names` below it, which is
    created. Raises `MountpointError` if there is none."""
    why = []
    for folder in candidates():
        if covering.covers(mountpoint, folder):
            why.append(f"{folder} would be covered by the mount")
            continue
        below = folder.joinpath(*names)
        try:
            for one in (folder, below):
                _make_private(one)
        except OSError as error:
            why.append(f"{folder}: {error.strerror}")
            continue
        return below
    raise MountpointError(f"{mountpoint}: there is no folder to keep the mount's state in: {'; '.join(why)}")


def _make_private(folder: Path) -> None:
    """Create the folder, if it does not exist, and check that only we can write to it. Raises OSError."""
    ensure_own(folder)
    if folder.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise PermissionError(0, "others can write to it")
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        raise PermissionError(0, "it is not writable")
