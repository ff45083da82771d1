"""A sound map gives no findings; a map with one fault gives that finding, and is repaired without losing anything."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.log_cluster import LogCluster
from support.log_mounts import LogMounts
from support.memory_mounts import CALLER, ROOT, MemoryMounts, close, names, read_file, write_file

from dfsfuse.data import extents
from dfsfuse.data.extents import EMPTY, REGION_BYTES
from dfsfuse.namespace.ops import inodes
from dfsfuse.namespace.records import inode as records
from dfsfuse.namespace.records import keys
from dfsfuse.namespace.records.inode import Entry, Inode
from dfsfuse.upkeep.fsck.examine import Examined, examine, mend
from dfsfuse.vfs.vfs import AttributeChanges, Vfs

NOW_NS = 5_000_000_000


class Tree:
    """A namespace with a bit of everything, for tests to break: /f /g (one file), /d/e/h, /link, a deleted open
    file."""

    def __init__(self) -> None:
        self.mounts = MemoryMounts()
        self.vfs = vfs = self.mounts.mount()
        self.f = write_file(vfs, b"f", b"content of f")
        vfs.link(self.f, ROOT, b"g")
        self.d = vfs.mkdir(ROOT, b"d", 0o755, CALLER).ino
        self.e = vfs.mkdir(self.d, b"e", 0o755, CALLER).ino
        self.h = write_file(vfs, b"h", b"content of h", parent=self.e)
        self.link = vfs.symlink(ROOT, b"link", b"d/e/h", CALLER).ino
        self.open = write_file(vfs, b"open", b"content")
        self.handle = vfs.open(self.open, os.O_RDONLY)
        vfs.unlink(ROOT, b"open")
        self.items = self.mounts.map.items

    def examine(self) -> Examined:
        return examine(self.items, NOW_NS)

    def inode(self, ino: int) -> Inode:
        return records.decode_inode(self.items[keys.inode(ino)])

    def change(self, ino: int, **fields: object) -> None:
        self.items[keys.inode(ino)] = records.encode(msgspec.structs.replace(self.inode(ino), **fields))

    def entry(self, parent: int, name: bytes, ino: int, kind: int = stat.S_IFREG) -> None:
        self.items[keys.entry(parent, name)] = records.encode(Entry(records.FORMAT, ino, kind))

    def recount(self) -> None:
        """Correct the counts of folders, so that only the names are wrong."""
        for key, value in list(self.items.items()):
            if key.startswith(b"i/") and records.decode_inode(value).is_directory:
                ino = keys.number_in(key)
                entries = [
                    records.decode_entry(entry)
                    for at, entry in self.items.items()
                    if at.startswith(keys.entry(ino, b""))
                ]
                self.change(ino, size=len(entries), nlink=2 + sum(entry.is_directory for entry in entries))

    def remount(self) -> Vfs:
        return self.mounts.mount()

    def mend(self) -> None:
        """Repair what is found, and check that nothing is found afterwards."""
        assert mend(self.mounts.map, self.examine().draft)
        self.items = self.mounts.map.items
        again = self.examine()
        assert again.findings == []
        assert again.draft.changes == {}


def kinds(found: Examined) -> list[str]:
    return sorted(finding.kind for finding in found.findings)


def everything(vfs: Vfs, ino: int = ROOT) -> dict[bytes, bytes]:
    """The contents of all files below a folder, by path."""
    found = {}
    for name in names(vfs, ino):
        attributes = vfs.lookup(ino, name)
        if stat.S_ISDIR(attributes.mode):
            found.update({name + b"/" + below: data for below, data in everything(vfs, attributes.ino).items()})
        elif stat.S_ISREG(attributes.mode):
            found[name] = read_file(vfs, name, ino)
        else:
            found[name] = b"-> " + vfs.readlink(attributes.ino)
    return found


WHOLE = {b"f": b"content of f", b"g": b"content of f", b"d/e/h": b"content of h", b"link": b"-> d/e/h"}


def test_a_sound_map_gives_no_finding() -> None:
    tree = Tree()
    found = tree.examine()
    assert found.findings == []
    assert found.draft.changes == {}
    assert (found.files, found.folders, found.is_all_understood) == (4, 3, True)
    assert examine({}, NOW_NS).findings == []


def test_fields_of_an_inode_that_are_wrong() -> None:
    wrong: list[tuple[str, Callable[[Tree], int], dict[str, object]]] = [
        ("wrong link count", lambda tree: tree.f, {"nlink": 1}),
        ("wrong link count", lambda tree: tree.f, {"nlink": 3}),
        ("wrong link count", lambda tree: tree.d, {"nlink": 2}),
        ("wrong link count", lambda tree: ROOT, {"nlink": 5}),
        ("wrong size", lambda tree: tree.d, {"size": 0}),
        ("wrong size", lambda tree: ROOT, {"size": 9}),
        ("wrong size", lambda tree: tree.f, {"size": 3}),
        ("wrong size", lambda tree: tree.link, {"size": 3}),
        ("wrong parent", lambda tree: tree.e, {"parent": ROOT}),
        ("wrong stored bytes", lambda tree: tree.h, {"stored_bytes": 1}),
    ]
    for kind, which, fields in wrong:
        tree = Tree()
        before = tree.inode(which(tree))
        tree.change(which(tree), **fields)
        found = tree.examine()
        assert [(finding.kind, finding.mends) for finding in found.findings] == [(kind, True)], fields
        assert found.findings[0].key == keys.inode(which(tree))
        tree.mend()
        assert tree.inode(which(tree)) == before
        assert everything(tree.remount()) == WHOLE


def test_what_is_mended_may_be_more_than_a_batch_has_room_for(log_cluster: LogCluster) -> None:
    """The inodes' records are large because they hold extended attributes."""
    mounts = LogMounts(log_cluster)
    made = mounts.with_much_in_their_records(80)
    items = mounts.memory.map.items
    right = dict(items)
    for ino in made:
        inode = records.decode_inode(items[keys.inode(ino)])
        items[keys.inode(ino)] = records.encode(msgspec.structs.replace(inode, nlink=2))
    mounts.commit()
    store = mounts.cold_map()
    draft = examine(items, NOW_NS).draft
    assert draft.changes.keys() == {keys.inode(ino) for ino in made}
    assert mend(store, draft)
    asked = sorted(right)
    assert dict(zip(asked, store.read(lambda view: view.get_many(asked)), strict=True)) == right


def test_an_entry_of_another_type_than_its_inode() -> None:
    tree = Tree()
    tree.entry(tree.e, b"h", tree.h, stat.S_IFLNK)
    assert kinds(tree.examine()) == ["wrong type"]
    assert tree.examine().findings[0].path == b"/d/e/h"
    tree.mend()
    assert everything(tree.remount()) == WHOLE


@pytest.mark.parametrize("which", ["f", "h"])
def test_a_file_whose_record_is_missing_is_made_anew_with_its_data(which: str) -> None:
    tree = Tree()
    del tree.items[keys.inode(getattr(tree, which))]
    assert "missing inode" in kinds(tree.examine())
    tree.mend()
    assert everything(tree.remount()) == WHOLE


def test_folders_whose_records_are_missing_are_made_anew_with_all_in_them() -> None:
    for gone in ("d", "e", "root"):
        tree = Tree()
        del tree.items[keys.inode(ROOT if gone == "root" else getattr(tree, gone))]
        assert "missing inode" in kinds(tree.examine())
        tree.mend()
        assert everything(tree.remount()) == WHOLE


def test_a_link_whose_record_is_missing_is_said_and_left_alone() -> None:
    tree = Tree()
    del tree.items[keys.inode(tree.link)]
    found = tree.examine()
    assert [(one.kind, one.mends) for one in found.findings] == [("missing inode", False)]
    assert found.draft.changes == {}


def test_what_no_name_leads_to_is_in_lost_and_found_afterwards() -> None:
    tree = Tree()
    del tree.items[keys.entry(tree.e, b"h")], tree.items[keys.entry(ROOT, b"f")], tree.items[keys.entry(ROOT, b"g")]
    tree.recount()
    assert kinds(tree.examine()) == ["unreachable"] * 2
    tree.mend()
    assert everything(tree.remount()) == {
        b"link": b"-> d/e/h",
        b"lost+found/#%d" % tree.f: b"content of f",
        b"lost+found/#%d" % tree.h: b"content of h",
    }


def test_a_folder_that_no_name_leads_to_keeps_what_is_in_it() -> None:
    tree = Tree()
    write_file(tree.vfs, b"lost+found", b"in the way")
    tree.items = tree.mounts.map.items
    del tree.items[keys.entry(ROOT, b"d")]
    tree.recount()
    assert kinds(tree.examine()) == ["unreachable"]
    tree.mend()
    found = everything(tree.remount())
    assert found[b"lost+found'/#%d/e/h" % tree.d] == b"content of h"
    assert found[b"lost+found"] == b"in the way"


def test_lost_and_found_is_used_again_and_names_in_it_are_kept() -> None:
    tree = Tree()
    del tree.items[keys.entry(tree.e, b"h")]
    tree.mend()
    vfs = tree.remount()
    lost = vfs.lookup(ROOT, b"lost+found").ino
    number = write_file(vfs, b"another", b"another")
    write_file(vfs, b"#%d" % number, b"in the way", parent=lost)
    tree.items = tree.mounts.map.items
    del tree.items[keys.entry(ROOT, b"another")]
    tree.mend()
    found = everything(tree.remount())
    assert found[b"lost+found/#%d" % number] == b"in the way"
    assert found[b"lost+found/#%d'" % number] == b"another"


def test_a_ring_of_folders_is_opened() -> None:
    tree = Tree()
    del tree.items[keys.entry(ROOT, b"d")]
    tree.entry(tree.e, b"d", tree.d, stat.S_IFDIR)
    tree.change(tree.d, parent=tree.e)
    tree.recount()
    assert "unreachable" in kinds(tree.examine())
    tree.mend()
    found = everything(tree.remount())
    assert b"content of h" in found.values()
    assert len(found) == 4


def test_a_second_name_of_a_folder_goes() -> None:
    for parent, ino in (("root", "e"), ("e", "d"), ("e", "root")):
        tree = Tree()
        where = ROOT if parent == "root" else getattr(tree, parent)
        tree.entry(where, b"zz", ROOT if ino == "root" else getattr(tree, ino), stat.S_IFDIR)
        tree.recount()
        assert "second name" in kinds(tree.examine())
        tree.mend()
        found = everything(tree.remount())
        assert b"content of h" in found.values()
        assert len(found) == 4


def test_marks_of_deleted_files() -> None:
    tree = Tree()
    tree.items[keys.orphan(tree.f)] = b"\x01"
    tree.items[keys.orphan(777)] = b"\x01"
    assert kinds(tree.examine()) == ["left mark", "named orphan"]
    tree.mend()
    assert keys.orphan(tree.open) in tree.items
    assert everything(tree.remount()) == WHOLE

    del tree.items[keys.orphan(tree.open)]
    assert kinds(tree.examine()) == ["unreachable"]
    tree.mend()
    assert everything(tree.remount())[b"lost+found/#%d" % tree.open] == b"content"


def test_inode_numbers_that_would_be_given_twice() -> None:
    tree = Tree()
    tree.items[keys.NEXT_INODE] = (3).to_bytes(8, "big")
    assert kinds(tree.examine()) == ["inode numbers"]
    tree.mend()
    vfs = tree.remount()
    assert write_file(vfs, b"new", b"") > max(tree.f, tree.d, tree.e, tree.h, tree.link, tree.open)


@pytest.mark.parametrize("has_a_name", [True, False])
def test_a_mark_that_cannot_be_read_is_left_alone(has_a_name: bool) -> None:
    tree = Tree()
    key = keys.orphan(tree.f if has_a_name else 777)
    tree.items[key] = b"of a newer program"
    found = tree.examine()
    assert [(one.kind, one.key) for one in found.findings] == [("cannot be read", key)]
    assert found.draft.changes == {}


def test_records_of_data_without_data_or_without_a_file() -> None:
    tree = Tree()
    tree.items[keys.region(tree.f, 3)] = extents.encode(EMPTY)
    assert kinds(tree.examine()) == ["empty region"]
    tree.mend()

    tree.items[keys.region(900, 0)] = tree.items.pop(keys.region(tree.h, 0))
    tree.change(tree.h, stored_bytes=0)
    tree.mend()
    assert everything(tree.remount())[b"lost+found/#900"] == b"content of h"


def test_data_that_two_files_refer_to_is_said_and_left_alone() -> None:
    tree = Tree()
    tree.items[keys.region(tree.h, 0)] = tree.items[keys.region(tree.f, 0)]
    found = tree.examine()
    assert [(one.kind, one.path, one.mends) for one in found.findings] == [("shared data", b"/d/e/h", False)]
    assert "/f" in found.findings[0].text or "/g" in found.findings[0].text


@pytest.mark.parametrize("kind", [b"x/1", b"i/short", b"d/" + bytes(8), b"e/" + bytes(9), b"o/", b"zzz", b"n0"])
def test_keys_of_unknown_kinds_are_said_and_never_touched(kind: bytes) -> None:
    tree = Tree()
    tree.items[kind] = b"of a newer program"
    found = tree.examine()
    assert [(one.kind, one.key, one.mends) for one in found.findings] == [("cannot be read", kind, False)]
    assert found.draft.changes == {}
    assert not found.is_all_understood


def newer(record: bytes) -> bytes:
    values = msgspec.msgpack.decode(record)
    return msgspec.msgpack.encode([99, *values[1:]])


def test_records_of_unknown_formats_are_said_and_never_touched() -> None:
    for which in (
        lambda tree: keys.inode(tree.f),
        lambda tree: keys.inode(tree.d),
        lambda tree: keys.entry(tree.e, b"h"),
        lambda tree: keys.entry(tree.d, b"e"),
        lambda tree: keys.region(tree.h, 0),
    ):
        tree = Tree()
        key = which(tree)  # type: ignore[no-untyped-call]
        tree.items[key] = newer(tree.items[key])
        found = tree.examine()
        assert [(one.kind, one.key, one.mends) for one in found.findings] == [("cannot be read", key, False)]
        assert "format 99" in found.findings[0].text
        assert found.draft.changes == {}
        assert not found.is_all_understood


def test_where_an_entry_cannot_be_read_nothing_is_moved() -> None:
    tree = Tree()
    tree.items[keys.entry(tree.d, b"e")] = newer(tree.items[keys.entry(tree.d, b"e")])
    del tree.items[keys.entry(ROOT, b"f")]
    found = tree.examine()
    assert kinds(found) == ["cannot be read", "wrong size"]
    assert list(found.draft.changes) == [keys.inode(ROOT)]


def test_nothing_is_mended_on_top_of_what_somebody_changed_meanwhile() -> None:
    tree = Tree()
    tree.change(tree.f, nlink=1)
    draft = tree.examine().draft
    tree.remount().setattr(tree.f, AttributeChanges(mode=0o600))
    assert not mend(tree.mounts.map, draft)
    assert stat.S_IMODE(records.decode_inode(tree.mounts.map.items[keys.inode(tree.f)]).mode) == 0o600

    tree = Tree()
    del tree.items[keys.entry(tree.e, b"h")]
    draft = tree.examine().draft
    write_file(tree.remount(), b"x", b"")  # another file in the root has the name lost+found
    assert not mend(tree.mounts.map, draft)


@settings(max_examples=40)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["file", "folder", "link", "hard", "rename", "remove", "cut", "write"]),
            st.integers(0, 7),
            st.integers(0, 7),
            st.integers(0, 2 * REGION_BYTES),
        ),
        max_size=25,
    )
)
def test_whatever_a_mount_does_leaves_a_sound_map(steps: list[tuple[str, int, int, int]]) -> None:
    mounts = MemoryMounts()
    vfs = mounts.mount()
    folders = [ROOT]
    for what, one, two, size in steps:
        folder, name, other = folders[one % len(folders)], b"%d" % one, b"%d" % two
        try:
            match what:
                case "file" | "write":
                    _, handle = vfs.create(folder, name, 0o644, os.O_RDWR, CALLER)
                    vfs.write(handle, size, b"x" * two)
                    close(vfs, handle)
                case "folder":
                    folders.append(vfs.mkdir(folder, name, 0o755, CALLER).ino)
                case "link":
                    vfs.symlink(folder, name, other, CALLER)
                case "hard":
                    vfs.link(vfs.lookup(folder, name).ino, folders[two % len(folders)], other)
                case "rename":
                    vfs.rename(folder, name, folders[two % len(folders)], other, size % 3)
                case "remove":
                    vfs.unlink(folder, name)
                case "cut":
                    vfs.setattr(vfs.lookup(folder, name).ino, AttributeChanges(size=size))
        except OSError:
            pass
        found = examine(mounts.map.items, NOW_NS)
        assert found.findings == []
        assert found.draft.changes == {}
    vfs.close()


def test_root_of_a_new_namespace_is_no_finding() -> None:
    assert examine({keys.NEXT_INODE: (1026).to_bytes(8, "big")}, NOW_NS).findings == []
    assert records.encode(inodes.new_root(0))
