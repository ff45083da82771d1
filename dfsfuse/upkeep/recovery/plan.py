"""What is to become of the kept bytes of one file, given what is on the servers now. Pure.

The rule is that nothing newer is ever overwritten. A file is not changed since if its state in the map is the one that
the mount knew last (`dfsfuse.vfs.open.content_state`): times do not tell, as another mount saves with the time of its
write. If the mount knew no state, the file may have been changed, and counts as changed.

| the file now | kept bytes with places of their own | kept bytes that were appended |
|---|---|---|
| is not there any more, or is no regular file | beside | beside |
| holds these bytes already | nothing to do, if changed since | nothing to do, if a batch with them was in doubt |
| not changed since | in their places | at the end |
| changed since | beside | at the end; beside, if a batch with them was in doubt |

A batch of the mount's own that was in doubt and came through changes the state too. So the file is looked at: it holds
the kept bytes, or it is not known what it holds. The state that the mount knew last may be that after its batch: a file
to which something in doubt was appended counts as not changed only if it still ends where the mount believed it to end.

What is not whole, since the local disk was full, goes beside: a file is never made of two times without a word.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Final

from dfsfuse.upkeep.recovery.manifest import KeptFile

NAME_MAX_BYTES: Final = 255


class Action(Enum):
    """What to do with one file."""

    IN_PLACE = "in its place"
    AT_THE_END = "at its end"
    BESIDE = "beside"
    NOTHING = "there already"


@dataclass(frozen=True)
class Now:
    """The file as it is on the servers."""

    is_file: bool
    state: bytes | None
    """What identifies its content."""
    has_grown: bool
    """Whether it does not end any more where the mount believed that it does; asked of what was appended."""
    holds: Callable[[], bool]
    """Whether it has the kept bytes already: in their places, or at its end if they were appended. Asked if need be."""


def decide(file: KeptFile, now: Now | None) -> Action:
    """What to do with the kept bytes; `now` is None if there is no such inode any more."""
    if not file.parts:
        return Action.NOTHING
    if now is None or not now.is_file or file.missing_bytes:
        return Action.BESIDE
    is_unchanged = file.state is not None and now.state == file.state
    if file.is_appended:
        if not file.is_doubtful or (is_unchanged and not now.has_grown):
            return Action.AT_THE_END
        return Action.NOTHING if now.holds() else Action.BESIDE
    if is_unchanged:
        return Action.IN_PLACE
    return Action.NOTHING if now.holds() else Action.BESIDE


def name_beside(name: bytes, written_ns: int, number: int = 1) -> bytes:
    """A name for what goes beside a file: `NAME [recovered 2026-11-30 12.45.10]`, cut to what a name may have."""
    written = datetime.fromtimestamp(written_ns / 1e9, UTC).strftime("%Y-%m-%d %H.%M.%S")
    suffix = f" [recovered {written}{f' {number}' if number > 1 else ''}]".encode()
    room = NAME_MAX_BYTES - len(suffix)
    if len(name) > room:
        name = name[:room].decode(errors="ignore").encode() or name[:room]
    return name + suffix
