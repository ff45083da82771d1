"""Whether a config found in the working folder may be used: not one that another user can have put there.

The config decides which servers get our files and our password. So the config, its folder and the working folder must
belong to this user or to root, and no other user may write to them. Two cases are equally safe:
- a group that can write, if this user is its only member, as where each user has a group of the same name (umask 002);
- a folder that all can write to, if it is sticky, like /tmp: only we can replace our files in it.

A config that is named (--config, $DFS_CONFIG) is not checked: naming it is the user's decision. No state, no threads.
"""

from __future__ import annotations

import grp
import os
import pwd
import shlex
import stat
from pathlib import Path

_ACL = "system.posix_acl_access"


def refusal(config: Path) -> str | None:
    """Why `config`, a path below the working folder, must not be used, and what to do about it; None: it may be used.

    Raises OSError if that cannot be determined.
    """
    for place in (Path(), config.parent, config):
        reason = _reason(place)
        if reason is not None:
            return f"{config} is not used, since {reason} name it if you trust it (--config {shlex.quote(str(config))})"
    return None


def _reason(place: Path) -> str | None:
    status = place.stat()
    name = str(place.absolute()) if place == Path() else str(place)
    if status.st_uid not in (0, os.geteuid()):
        return f"{name} belongs to another user ({_user(status.st_uid)}):"
    if status.st_mode & stat.S_ISVTX and stat.S_ISDIR(status.st_mode):
        return None
    if status.st_mode & stat.S_IWOTH or (status.st_mode & stat.S_IWGRP and not _is_own_group(place, status.st_gid)):
        mode = f"{stat.S_IMODE(status.st_mode):04o}"
        return f"other users can write to {name} (mode {mode}): run `chmod go-w {shlex.quote(name)}`, or"
    return None


def _is_own_group(place: Path, gid: int) -> bool:
    """Whether only this user can write as the group. If there is an access control list, the group bits of the mode
    apply to everybody it names."""
    try:
        os.getxattr(place, _ACL)
    except OSError:
        pass  # there is no list, or the file system does not support them
    else:
        return False
    me = os.geteuid()
    try:
        members = grp.getgrgid(gid).gr_mem
    except KeyError:
        members = []
    return all(_user(me) == name for name in members) and all(
        user.pw_uid in (0, me) for user in pwd.getpwall() if user.pw_gid == gid
    )


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
