"""The data of a namespace's files as far as the map knows it: regions, sizes, stored bytes, segments. Pure."""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import msgspec

from dfs_server.protocol.limits import SERVERS
from dfsfuse.data.extents import REGION_BYTES, Segment, covered
from dfsfuse.data.placement import Homes, ring, rotation_of_region
from dfsfuse.namespace.records import keys
from dfsfuse.namespace.records.inode import Inode
from dfsfuse.upkeep.fsck.records import Contents, Draft, Finding, shown

_RINGS = tuple(ring(x) for x in range(SERVERS))


@dataclass(frozen=True)
class Placed:
    """A segment that a file refers to, and where its pieces belong (None: unknown)."""

    ino: int
    index: int
    segment: Segment
    ring: Homes | None


def segments(contents: Contents) -> Iterator[Placed]:
    """Yield all segments that are referred to."""
    for ino, regions in contents.regions.items():
        inode = contents.inodes.get(ino)
        first = None if inode is None else inode.rotation
        for index, region in regions:
            homes = None if first is None else _RINGS[rotation_of_region(first, index)]
            for segment in region.segments:
                yield Placed(ino, index, segment, homes)


def check(contents: Contents, draft: Draft, path: Callable[[int], bytes]) -> list[Finding]:
    """Check the data of all files, and change the draft so that it becomes what it should be."""
    findings: list[Finding] = []
    for ino, inode in sorted(contents.inodes.items()):
        if not inode.is_directory:
            findings += _check_inode(contents, draft, ino, inode, path)
    findings += _shared(contents, path)
    return findings


def _check_inode(
    contents: Contents, draft: Draft, ino: int, inode: Inode, path_of: Callable[[int], bytes]
) -> list[Finding]:
    key = keys.inode(ino)
    if stat.S_ISLNK(inode.mode) and inode.size != len(inode.target):
        draft.put_inode(ino, msgspec.structs.replace(inode, size=len(inode.target)))
        return [Finding("wrong size", path_of(ino), "the size is not that of the link's target", key, mends=True)]
    regions = contents.regions.get(ino, [])
    if not inode.is_file:
        text = "it has data, and is not a file"
        return [Finding("data of no file", path_of(ino), text, key)] if regions else []
    if ino in contents.unreadable_regions:
        return []
    findings = []
    for index, region in regions:
        if not region.extents:
            findings.append(
                Finding("empty region", path_of(ino), "a record of data without data", keys.region(ino, index), True)
            )
            draft.put(keys.region(ino, index), None)
    end = max((index * REGION_BYTES + region.end() for index, region in regions if region.extents), default=0)
    stored = sum(covered(region) for _, region in regions)
    right = msgspec.structs.replace(inode, size=max(inode.size, end), stored_bytes=stored)
    if inode.size < end:
        text = f"it has data up to byte {end}, and its record says that it ends at {inode.size}"
        findings.append(Finding("wrong size", path_of(ino), text, key, mends=True))
    if inode.stored_bytes != stored:
        text = f"it has {stored} bytes that are stored, and its record says {inode.stored_bytes}"
        findings.append(Finding("wrong stored bytes", path_of(ino), text, key, mends=True))
    if right != inode:
        contents.inodes[ino] = right
        draft.put_inode(ino, right)
    return findings


def _shared(contents: Contents, path: Callable[[int], bytes]) -> list[Finding]:
    """Find segments to which two records refer: when one of them drops it, the other one's data goes too."""
    seen: dict[bytes, Placed] = {}
    findings = []
    for placed in segments(contents):
        first = seen.setdefault(placed.segment.id, placed)
        if first is not placed:
            text = f"data of it is also data of {shown(path(first.ino))}: copy both files, then remove these two"
            findings.append(Finding("shared data", path(placed.ino), text, keys.region(placed.ino, placed.index)))
    return findings
