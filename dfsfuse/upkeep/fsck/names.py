"""The names of a namespace: each entry leads to an inode; each inode's names, counts and parents are right. Pure.

Repairs lose nothing: a missing record is recreated from what refers to it; an inode without a name gets one in
`/lost+found`, `#` plus its inode number; of several names of a folder, one by which it is reached from the root is
kept. If an entry cannot be read, what it leads to is unknown: then nothing is moved and no names are counted.
"""

from __future__ import annotations

import stat
from collections import deque
from collections.abc import Iterator

import msgspec

from dfsfuse.namespace.ops import inodes
from dfsfuse.namespace.ops.directories import check_name
from dfsfuse.namespace.records import inode as records
from dfsfuse.namespace.records import keys
from dfsfuse.namespace.records.inode import Entry, Inode
from dfsfuse.upkeep.fsck.records import Contents, Draft, Finding, shown

ROOT = keys.ROOT
LOST_AND_FOUND = b"lost+found"
FOLDER_MODE = stat.S_IFDIR | 0o700
FILE_MODE = stat.S_IFREG | 0o600


class Names:
    """A check of one map's names. `contents` is changed along with the draft."""

    def __init__(self, contents: Contents, draft: Draft, now_ns: int) -> None:
        self._contents = contents
        self._draft = draft
        self._now_ns = now_ns
        self._findings: list[Finding] = []
        self._home: dict[int, tuple[int, bytes]] = {ROOT: (ROOT, b"")}
        """By inode: a folder, and a name in it, by which the inode is reached."""
        self._is_certain = not any(contents.unreadable_entries.values()) and (
            contents.next_inode is not None or keys.NEXT_INODE not in draft.items
        )
        self._lost: int | None = None
        self._moved: set[int] = set()
        """Inodes that were recreated or given a name here: their counts are expected to change."""
        self._sizes, self._links, self._names = self._counts()

    def check(self) -> list[Finding]:
        """Check everything, and change the draft so that it becomes what it should be."""
        self._make_missing()
        self._reach(ROOT)
        if self._is_certain:
            self._attach_unreached()
        self._check_entries()
        self._check_orphans()
        self._count()
        self._check_next_inode()
        return self._findings

    def path(self, ino: int) -> bytes:
        """Return a path that leads to the inode, or a stand-in for one."""
        names: list[bytes] = []
        seen: set[int] = set()
        while ino != ROOT and ino in self._home and ino not in seen:
            seen.add(ino)
            ino, name = self._home[ino]
            names.append(name)
        above = b"" if ino == ROOT else b"(inode %d)" % ino
        return above + b"".join(b"/" + name for name in reversed(names)) or b"/"

    def _say(self, kind: str, path: bytes, text: str, key: bytes, *, mends: bool = True) -> None:
        self._findings.append(Finding(kind, path, text, key, mends))

    # ------------------------------------------------------------------ records that are missing

    def _make_missing(self) -> None:
        contents = self._contents
        if contents.exists(ROOT):
            pass
        elif any(ino != ROOT for ino in contents.inodes) or contents.entries:
            self._say("missing inode", b"/", "the root's record is missing", keys.inode(ROOT))
            self._make(ROOT, FOLDER_MODE | 0o055)
        else:
            contents.inodes[ROOT] = inodes.new_root(0)  # as everyone assumes who finds none
        for ino in sorted(set(contents.entries) - set(contents.inodes) - contents.unreadable_inodes):
            self._say("missing inode", b"(inode %d)" % ino, "a folder's record is missing", keys.inode(ino))
            self._make(ino, FOLDER_MODE)
        for ino in sorted(set(contents.regions) - set(contents.inodes) - contents.unreadable_inodes):
            self._say(
                "missing inode", b"(inode %d)" % ino, "the record of a file with data is missing", keys.inode(ino)
            )
            self._make(ino, FILE_MODE)
        for parent, name, entry in list(self._entries()):
            if contents.exists(entry.ino):
                continue
            can_be_made = entry.is_directory or entry.is_file
            self._say(
                "missing inode",
                b"(inode %d)/%b" % (parent, name),
                "its inode's record is missing"
                + ("" if can_be_made else ", and the inode was neither a file nor a folder"),
                keys.entry(parent, name),
                mends=can_be_made,
            )
            if can_be_made:
                self._make(entry.ino, FOLDER_MODE if entry.is_directory else FILE_MODE)

    def _make(self, ino: int, mode: int) -> None:
        root = self._contents.inodes.get(ROOT)
        uid, gid = (root.uid, root.gid) if root else (0, 0)
        self._moved.add(ino)
        self._save(ino, inodes.new(mode, uid, gid, self._now_ns, parent=ROOT if ino == ROOT else 0))

    def _save(self, ino: int, inode: Inode) -> None:
        self._contents.inodes[ino] = inode
        self._draft.put_inode(ino, inode)

    def _entries(self) -> Iterator[tuple[int, bytes, Entry]]:
        for parent, names in self._contents.entries.items():
            for name, entry in names:
                yield parent, name, entry

    # ------------------------------------------------------------------ what leads where

    def _is_folder(self, ino: int) -> bool:
        found = self._contents.inodes.get(ino)
        return found.is_directory if found else ino in self._contents.entries

    def _reach(self, top: int) -> None:
        """Walk down from a folder. A folder that is met again keeps the name by which it was met first."""
        todo = deque([top])
        while todo:
            folder = todo.popleft()
            for name, entry in list(self._contents.entries.get(folder, ())):
                if entry.ino not in self._home:
                    self._home[entry.ino] = folder, name
                    if self._is_folder(entry.ino):
                        todo.append(entry.ino)
                elif self._is_folder(entry.ino):
                    text = f"a second name of the folder {shown(self.path(entry.ino))}"
                    if self._is_certain:
                        self._remove(folder, name)
                    self._say(
                        "second name",
                        self._path_in(folder, name),
                        text,
                        keys.entry(folder, name),
                        mends=self._is_certain,
                    )

    def _path_in(self, folder: int, name: bytes) -> bytes:
        return self.path(folder).rstrip(b"/") + b"/" + name

    def _attach_unreached(self) -> None:
        """Give names to inodes without one. Folders first, top down; of a cycle of folders, one is taken out of the
        cycle."""
        contents = self._contents
        unreached = {ino for ino in (*contents.inodes, *contents.unreadable_inodes) if ino not in self._home}
        unreached -= {ino for ino in contents.orphans if self._is_orphan(ino)}
        above = {entry.ino: parent for parent, _, entry in self._entries() if parent in unreached}
        for ino in sorted(ino for ino in unreached if ino not in above):
            if ino in contents.inodes:
                self._attach(ino, "no name leads to it")
            else:
                self._reach(ino)  # it cannot be read, and so it stays where it is
        for start in sorted(unreached):
            if start not in self._home and start in above:
                ino, seen = start, {0}
                while ino not in seen:
                    seen.add(ino)
                    ino = above[ino]
                for parent, name, entry in list(self._entries()):
                    if entry.ino == ino:
                        self._remove(parent, name)
                self._attach(ino, "it is in a cycle of folders to which no name leads")

    def _is_orphan(self, ino: int) -> bool:
        """Return whether it was deleted and marked as such. It may be open somewhere, and goes away by itself."""
        found = self._contents.inodes.get(ino)
        return ino in self._contents.orphans and found is not None and not found.nlink

    def _attach(self, ino: int, why: str) -> None:
        lost = self._lost_and_found()
        taken = {name for name, _ in self._contents.entries.get(lost, ())}
        name = b"#%d" % ino
        while name in taken:
            name += b"'"
        found = self._contents.inodes.get(ino)
        mode = found.mode if found else FOLDER_MODE if self._is_folder(ino) else FILE_MODE
        self._add(lost, name, ino, mode)
        self._home[ino] = lost, name
        self._moved.add(ino)
        self._draft.guards.add(keys.inode(ino))
        self._say(
            "unreachable", b"(inode %d)" % ino, f"{why}: it belongs into {shown(self.path(ino))}", keys.inode(ino)
        )
        self._reach(ino)

    def _lost_and_found(self) -> int:
        if self._lost is None:
            here = dict(self._contents.entries.get(ROOT, ()))
            name = LOST_AND_FOUND
            while name in here and not self._is_folder(here[name].ino):
                name += b"'"
            if name in here:
                self._lost = here[name].ino
            else:
                self._lost = self._free_number()
                self._contents.next_inode = self._lost + 1
                self._draft.put(keys.NEXT_INODE, (self._lost + 1).to_bytes(keys.NUMBER_BYTES, "big"))
                self._make(self._lost, FOLDER_MODE)
                self._add(ROOT, name, self._lost, FOLDER_MODE)
                self._home[self._lost] = ROOT, name
        return self._lost

    def _add(self, folder: int, name: bytes, ino: int, mode: int) -> None:
        entry = Entry(records.FORMAT, ino, stat.S_IFMT(mode))
        self._contents.entries.setdefault(folder, []).append((name, entry))
        self._draft.put(keys.entry(folder, name), records.encode(entry))

    def _remove(self, folder: int, name: bytes) -> None:
        left = [(other, entry) for other, entry in self._contents.entries[folder] if other != name]
        self._contents.entries[folder] = left
        self._draft.put(keys.entry(folder, name), None)

    # ------------------------------------------------------------------ individual records

    def _check_entries(self) -> None:
        for parent, name, entry in list(self._entries()):
            key = keys.entry(parent, name)
            folder, inode = self._contents.inodes.get(parent), self._contents.inodes.get(entry.ino)
            try:
                check_name(name)
            except OSError:
                self._say("bad name", self._path_in(parent, name), "a name that no program can use", key, mends=False)
            if folder is not None and not folder.is_directory:
                self._say(
                    "no folder",
                    self._path_in(parent, name),
                    "a name in something that is not a folder",
                    key,
                    mends=False,
                )
            if inode is not None and stat.S_IFMT(inode.mode) != entry.type:
                self._say(
                    "wrong type",
                    self._path_in(parent, name),
                    "the name and the inode disagree on the type of file",
                    key,
                )
                self._draft.put(key, records.encode(Entry(records.FORMAT, entry.ino, stat.S_IFMT(inode.mode))))

    def _check_orphans(self) -> None:
        for ino in sorted(self._contents.orphans - self._contents.unreadable_orphans):
            key = keys.orphan(ino)
            if ino in self._home:
                self._say("named orphan", self.path(ino), "it has a name, and is marked as deleted", key)
                self._draft.put(key, None)
            elif not self._contents.exists(ino):
                self._say("left mark", b"(inode %d)" % ino, "marked as deleted, and not there any more", key)
                self._draft.put(key, None)

    def _counts(self) -> tuple[dict[int, int], dict[int, int], dict[int, int]]:
        """Return entries and link count by folder, and the number of names by inode."""
        sizes, links, names = dict(self._contents.unreadable_entries), dict[int, int](), dict[int, int]()
        for parent, _, entry in self._entries():
            sizes[parent] = sizes.get(parent, 0) + 1
            links[parent] = links.get(parent, 2) + self._is_folder(entry.ino)
            names[entry.ino] = names.get(entry.ino, 0) + 1
        return sizes, links, names

    def _count(self) -> None:
        """Correct counts and parents; report those that were wrong before anything else was changed here."""
        sizes, links, names = self._counts()
        for ino, inode in sorted(self._contents.inodes.items()):
            if inode.is_directory:
                if ino in self._home or sizes.get(ino):
                    self._count_folder(ino, inode, sizes.get(ino, 0), links.get(ino, 2))
            elif self._is_certain and names.get(ino, 0) not in (0, inode.nlink):
                if ino not in self._moved and self._names.get(ino, 0) != inode.nlink:
                    text = f"it has {_several(names[ino], 'name')}, and its record says {inode.nlink}"
                    self._say("wrong link count", self.path(ino), text, keys.inode(ino))
                self._save(ino, msgspec.structs.replace(inode, nlink=names[ino]))

    def _count_folder(self, ino: int, inode: Inode, size: int, nlink: int) -> None:
        was_size, was_nlink = self._sizes.get(ino, 0), self._links.get(ino, 2)
        if self._contents.unreadable_entries.get(ino):
            nlink = was_nlink = inode.nlink  # it is unknown which of them are folders
        parent = self._home.get(ino, (inode.parent, b""))[0]
        if ino not in self._moved:
            if was_size != inode.size:
                text = f"it has {_several(size, 'name')} in it, and its record says {inode.size}"
                self._say("wrong size", self.path(ino), text, keys.inode(ino))
            if was_nlink != inode.nlink:
                text = f"it should have the link count {nlink}, and its record says {inode.nlink}"
                self._say("wrong link count", self.path(ino), text, keys.inode(ino))
            if parent != inode.parent:
                self._say(
                    "wrong parent", self.path(ino), "its record says that it is in another folder", keys.inode(ino)
                )
        right = msgspec.structs.replace(inode, size=size, nlink=nlink, parent=parent)
        if right != inode:
            self._save(ino, right)

    # ------------------------------------------------------------------ numbers

    def _free_number(self) -> int:
        named = (entry.ino for _, _, entry in self._entries())
        largest = max([ROOT, *self._contents.inodes, *self._contents.unreadable_inodes, *named])
        return max(largest + 1, self._contents.next_inode or 0)

    def _check_next_inode(self) -> None:
        if self._is_certain and self._free_number() > (self._contents.next_inode or keys.FIRST_INODE):
            text = "the next free inode number is not above all that are used"
            self._say("inode numbers", b"/", text, keys.NEXT_INODE)
            self._draft.put(keys.NEXT_INODE, self._free_number().to_bytes(keys.NUMBER_BYTES, "big"))


def _several(count: int, what: str) -> str:
    return f"{count} {what}" + "s" * (count != 1)
