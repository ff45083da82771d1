"""What is set once for a whole mount, and never changes while it lasts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from dfsfuse.vfs.health.incomplete import Policy
from dfsfuse.vfs.locks.locking import LIFETIME_S
from dfsfuse.vfs.write.backlog import SAVE_AFTER_S

DURABILITIES: Final = ("close", "fsync")


@dataclass(frozen=True)
class MountSettings:
    """The settings of one mount. Raises ValueError for an unknown durability."""

    durability: str = "close"
    """Whether close() returns only when everything is durable (`close`), or only fsync() waits (`fsync`)."""
    save_after_s: float = SAVE_AFTER_S
    """Written data is saved when it is this old, even if its file stays open."""
    max_age_s: float = 0.5
    """How old attributes, names and the data of open files may be."""
    dirty_limit_bytes: int = 64 * 1024 * 1024
    """At most this much unsaved data is held in memory."""
    lock_lifetime_s: float = LIFETIME_S
    """When nothing was heard of this mount for so long, others may have its locks."""
    atime: str = "noatime"
    diratime: bool = True
    """How reading affects access times: a rule of access_times.py, and whether listing a folder counts."""
    incomplete: Policy = Policy.MARK
    """How files that cannot be assembled are shown."""
    removal_grace_s: float = 0.0
    """How long removed files are kept, so that other mounts can say that they have them open."""

    def __post_init__(self) -> None:
        if self.durability not in DURABILITIES:
            raise ValueError(f"durability is {self.durability!r}; it must be one of {', '.join(DURABILITIES)}")
