"""What to do with the kept bytes of one file, given what is on the servers now. Pure.

The rule is that nothing newer is ever overwritten. A file is unchanged if its state in the map is the one that the
mount last knew (`dfsfuse.vfs.open.content_state`): times do not show it, as another mount saves with the time of its
write. If the mount knew no state, the file may have been changed, and counts as changed.

| the file now | kept bytes with places of their own | kept bytes that were appended |
|---|---|---|
| no longer exists, or is not a regular file | beside | beside |
| already holds these bytes | nothing to do, if changed since | nothing to do, if a batch with them was in doubt |
| unchanged since | in their places | at the end |
| changed since | beside | at the end; beside, if a batch with them was in doubt |

A batch of the mount's own that was in doubt and was committed changes the state too. So the file is examined: it holds
the kept bytes, or it is unknown what it holds. The state that the mount last knew may be that after its batch: a file
to which something in doubt was appended counts as unchanged only if it still ends where the mount believed it to end.

What is incomplete, since the local disk was full, goes beside: a file never silently mixes the states of two times.
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
    """Whether it no longer ends where the mount believed it does; relevant to what was appended."""
    holds: Callable[[], bool]
    """Return whether it already has the kept bytes: in their places, or at its end if they were appended. Called if
    needed."""


def decide(file: KeptFile, now: Now | None) -> Action:
    """Return what to do with the kept bytes; `now` is None if the inode no longer exists."""
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
    """Return a name for what goes beside a file: `NAME [recovered 2026-11-30 12.45.10]`, cut to the longest allowed
    name."""
    written = datetime.fromtimestamp(written_ns / 1e9, UTC).strftime("%Y-%m-%d %H.%M.%S")
    suffix = f" [recovered {written}{f' {number}' if number > 1 else ''}]".encode()
    room = NAME_MAX_BYTES - len(suffix)
    if len(name) > room:
        name = name[:room].decode(errors="ignore").encode() or name[:room]
    return name + suffix
