"""What is unsaved of a file, to be kept elsewhere when the mount ends and the servers do not take it.

Unsaved data is in layers (open_file.py); what counts is what a reader sees, so each byte is returned once, from the top
layer that has it. Bytes whose segment is already uploaded are not in memory any more: they are returned as a part of
that segment, which is on its servers though the map does not refer to it.

Threads: `of` takes the file's lock.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from dfsfuse.data.extents import REGION_BYTES
from dfsfuse.vfs.open import content_state
from dfsfuse.vfs.open.open_file import OpenFile, Shown


@dataclass(frozen=True)
class LeftOver:
    """The unsaved bytes of one file. `parts` are sorted and do not overlap."""

    ino: int
    path: bytes | None
    """The names by which it was last found here, from the root on."""
    written_ns: int
    is_appended: bool
    """Whether the bytes were appended, in one run: their place in the file is undecided, and `parts` begin where this
    mount believed the file to end."""
    is_doubtful: bool
    """Whether a batch with some of these bytes may have been made nevertheless."""
    parts: tuple[Shown, ...]
    state: bytes | None = None
    """The file's state when this mount last knew it (content_state.py); None if it does not know it."""

    @property
    def size(self) -> int:
        """Return the number of bytes."""
        return sum(part.length for part in self.parts)

    @property
    def regions(self) -> list[int]:
        """Return the regions whose content counts towards `state`."""
        return content_state.regions_written((part.start for part in self.parts), is_appended=self.is_appended)


def of(file: OpenFile, path: bytes | None, now_ns: int) -> LeftOver | None:
    """Return what is unsaved of the file; None if nothing is, or if the file has no name any more."""
    with file.lock:
        if not file.has_data or file.is_unlinked:
            return None
        regions = sorted({*file.buffer.regions(), *(item.region for item in file.sealed)})
        parts = [
            part
            for region in regions
            for part in visible(file.layers(region * REGION_BYTES, (region + 1) * REGION_BYTES))
        ]
        doubtful = any(item.doubt is not None for item in file.sealed)
        written_ns = now_ns if file.written_ns is None else file.written_ns
        return LeftOver(file.ino, path, written_ns, file.is_appended, doubtful, tuple(parts))


def visible(layers: Sequence[Iterable[Shown]]) -> list[Shown]:
    """Return what is visible of these layers, the top one first: sorted, and no byte twice."""
    seen: list[Shown] = []
    for layer in layers:
        found = [rest for shown in layer for rest in _outside(shown, seen)]
        seen = sorted([*seen, *found], key=lambda shown: shown.start)
    return seen


def _outside(shown: Shown, seen: Sequence[Shown]) -> list[Shown]:
    """Return the parts of `shown` that none of `seen`, which is sorted, covers."""
    parts, at, end = [], shown.start, shown.start + shown.length
    for above in seen:
        if above.start >= end:
            break
        if above.start > at:
            parts.append(_part(shown, at, above.start))
        at = max(at, above.start + above.length)
    return [*parts, _part(shown, at, end)] if at < end else parts


def _part(shown: Shown, start: int, end: int) -> Shown:
    skipped = start - shown.start
    data = None if shown.data is None else shown.data[skipped : skipped + end - start]
    offset = shown.segment_offset + skipped if shown.segment is not None else 0
    return replace(shown, start=start, length=end - start, data=data, segment_offset=offset)
