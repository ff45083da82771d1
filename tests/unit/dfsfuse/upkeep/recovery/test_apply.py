"""Putting kept data back on the servers: a namespace in memory, data kept by a real ending mount in a real folder."""

from __future__ import annotations

import os
import random
from pathlib import Path

import msgspec
import pytest
from support.memory_mounts import ROOT, MemoryMounts, create, names, read_file, write_file

from dfsfuse.data.extents import REGION_BYTES
from dfsfuse.errors import NoSpaceError, ReadOnlyError
from dfsfuse.upkeep.recovery import kept
from dfsfuse.upkeep.recovery.apply import Applier, Done
from dfsfuse.upkeep.recovery.kept import Kept
from dfsfuse.upkeep.recovery.manifest import KeptError, Manifest, Namespace
from dfsfuse.upkeep.recovery.plan import Action
from dfsfuse.vfs.caller import SUPERUSER
from dfsfuse.vfs.vfs import AttributeChanges, Vfs


class Left:
    """A mount that ends with unsaved data, and another that puts it back."""

    def __init__(self, mounts: MemoryMounts, folder: Path) -> None:
        self.mounts = mounts
        self.folder = folder
        self.vfs = mounts.mount()
        self.later = mounts.mount()

    def end(self) -> Kept:
        """End the mount without servers, which keeps its unsaved data."""
        manifest = Manifest(Namespace("alice", b"", ()), b"/mnt", 1, self.mounts.clock(), "gone", ())
        found = kept.keep(self.folder, "ID", manifest, self.vfs.ending.left_over())
        self.vfs.ending.abandon()
        self.vfs.close()
        return kept.load(found.folder)

    def apply(self, what: Kept) -> list[Done]:
        outcomes = []
        applier = Applier(self.later, self.mounts.segments, self._pass)
        for _, outcome in applier.apply(what, what.manifest.files, lambda _: None):
            if isinstance(outcome, Exception):
                raise outcome
            outcomes.append(outcome)
        return outcomes

    def _pass(self, seconds: float) -> None:
        self.mounts.now_s += seconds


@pytest.fixture
def left(mounts: MemoryMounts, tmp_path: Path) -> Left:
    return Left(mounts, tmp_path / "unsaved")


def write(vfs: Vfs, name: bytes, offset: int, data: bytes, flags: int = 0) -> None:
    """Write data that stays unsaved: the file is never closed."""
    vfs.write(vfs.open(vfs.lookup(ROOT, name).ino, os.O_WRONLY | flags), offset, data)


def test_into_its_place(left: Left) -> None:
    write_file(left.vfs, b"f", b"0123456789")
    write(left.vfs, b"f", 3, b"abc")
    what = left.end()
    (done,) = left.apply(what)
    assert (done.action, done.file.path) == (Action.IN_PLACE, b"f")
    assert read_file(left.later, b"f") == b"012abc6789"
    assert left.later.lookup(ROOT, b"f").mtime_ns > what.manifest.ended_ns  # backups must notice the change
    assert [one.action for one in left.apply(what)] == [Action.NOTHING]  # as after a crash


def test_a_file_that_was_renamed_is_found_by_its_inode(left: Left) -> None:
    write_file(left.vfs, b"f", b"0123456789")
    write(left.vfs, b"f", 0, b"abc")
    left.later.rename(ROOT, b"f", ROOT, b"g")
    what = left.end()
    assert [one.action for one in left.apply(what)] == [Action.IN_PLACE]
    assert read_file(left.later, b"g") == b"abc3456789"


def test_what_is_newer_is_never_overwritten(left: Left) -> None:
    write_file(left.vfs, b"f", b"0123456789")
    write(left.vfs, b"f", 8, b"old")
    what = left.end()
    write_file(left.later, b"f", b"NEWER CONTENT")
    (done,) = left.apply(what)
    assert done.action is Action.BESIDE and done.beside is not None
    assert read_file(left.later, b"f") == b"NEWER CONTENT"
    assert done.beside.startswith(b"/f [recovered ")
    assert read_file(left.later, done.beside[1:]) == bytes(8) + b"old"
    assert left.later.lookup(ROOT, done.beside[1:]).mode & 0o777 == 0o600
    (again,) = left.apply(what)
    assert again.beside == done.beside[:-1] + b" 2]"


def test_a_newer_content_with_an_old_time_of_its_own_is_newer(left: Left) -> None:
    """rsync and cp -p set the modification time (mtime) to an old one."""
    write_file(left.vfs, b"f", b"0123456789")
    write(left.vfs, b"f", 0, b"old")
    what = left.end()
    ino = write_file(left.later, b"f", b"NEWER CONTENT")
    left.later.setattr(ino, AttributeChanges(mtime_ns=5))
    assert [one.action for one in left.apply(what)] == [Action.BESIDE]
    assert read_file(left.later, b"f") == b"NEWER CONTENT"


@pytest.mark.parametrize("is_time_set", [False, True])
def test_what_another_mount_wrote_before_and_saved_after_the_end_is_newer(left: Left, is_time_set: bool) -> None:
    """Its times of change are those of the write, or were set by the program since; the mount that ended already knew
    later ones."""
    ino = write_file(left.vfs, b"f", b"0123456789")
    other = left.mounts.mount(durability="fsync")
    handle = other.open(ino, os.O_WRONLY)
    other.write(handle, 0, b"NEWER")
    if is_time_set:
        other.setattr(ino, AttributeChanges(mtime_ns=5))
    write(left.vfs, b"f", 0, b"old")
    what = left.end()
    other.fsync(handle)
    other.release(handle)
    assert [one.action for one in left.apply(what)] == [Action.BESIDE]
    assert read_file(left.later, b"f") == b"NEWER56789"


def test_a_file_that_the_mount_did_not_know_any_more_may_be_newer(left: Left) -> None:
    write_file(left.vfs, b"f", b"0123456789")
    write(left.vfs, b"f", 0, b"abc")
    left.mounts.map.remembers = False
    what = left.end()
    (done,) = left.apply(what)
    assert (done.action, done.file.state) == (Action.BESIDE, None)
    assert read_file(left.later, b"f") == b"0123456789"


def test_what_was_saved_before_the_end_is_no_change(left: Left) -> None:
    """Neither by the mount itself, nor by another mount in another region."""
    ino, handle = create(left.vfs)
    left.vfs.write(handle, 0, b"0123456789")
    left.vfs.fsync(handle)
    there = left.later.open(ino, os.O_WRONLY)
    left.later.write(there, 3 * REGION_BYTES, b"far")
    left.later.fsync(there)
    left.later.release(there)
    left.vfs.write(handle, 0, b"abc")
    assert [one.action for one in left.apply(left.end())] == [Action.IN_PLACE]
    assert read_file(left.later, b"f")[:10] == b"abc3456789"


@pytest.mark.parametrize("is_replaced", [False, True])
def test_a_file_that_was_removed_meanwhile(left: Left, is_replaced: bool) -> None:
    folder = left.vfs.mkdir(ROOT, b"folder", 0o755, SUPERUSER).ino
    write_file(left.vfs, b"f", b"0123456789", folder)
    handle = left.vfs.open(left.vfs.lookup(folder, b"f").ino, os.O_WRONLY)
    left.vfs.write(handle, 0, b"unsaved")
    what = left.end()
    left.later.unlink(folder, b"f")
    if is_replaced:
        write_file(left.later, b"f", b"another file", folder)
    (done,) = left.apply(what)
    assert done.action is Action.BESIDE and done.beside is not None
    assert done.beside.startswith(b"/folder/f [recovered ")
    assert names(left.later, folder) == sorted([*[b"f"] * is_replaced, done.beside.rpartition(b"/")[2]])
    assert read_file(left.later, done.beside.rpartition(b"/")[2], folder) == b"unsaved"


@pytest.mark.parametrize("now", ["nothing", "a file", "a link"])
def test_a_folder_that_is_gone_too(left: Left, now: str) -> None:
    folder = left.vfs.mkdir(ROOT, b"folder", 0o755, SUPERUSER).ino
    handle = left.vfs.create(folder, b"f", 0o644, os.O_WRONLY, SUPERUSER)[1]
    left.vfs.write(handle, 0, b"unsaved")
    what = left.end()
    left.later.unlink(folder, b"f")
    left.later.rmdir(ROOT, b"folder")
    if now == "a file":
        write_file(left.later, b"folder", b"another one")
    elif now == "a link":
        left.later.symlink(ROOT, b"folder", b"elsewhere", SUPERUSER)
    (done,) = left.apply(what)
    assert done.beside is not None and done.beside.startswith(b"/f [recovered ")


def test_a_file_that_never_reached_the_servers_and_was_never_closed(left: Left) -> None:
    before = dict(left.mounts.map.items)
    _, handle = create(left.vfs, b"new")
    left.vfs.write(handle, 0, b"data")
    what = left.end()
    left.mounts.map.items = before  # its name was answered but lost with the servers
    (done,) = left.apply(what)
    assert done.action is Action.BESIDE and done.beside is not None
    assert names(left.later) == [done.beside[1:]]
    assert read_file(left.later, done.beside[1:]) == b"data"


def test_appended_data_comes_after_what_others_appended(left: Left) -> None:
    write_file(left.vfs, b"log", b"one\n")
    write(left.vfs, b"log", 0, b"two\n", os.O_APPEND)
    what = left.end()
    write(left.later, b"log", 0, b"three\n", os.O_APPEND)
    assert [one.action for one in left.apply(what)] == [Action.AT_THE_END]
    assert read_file(left.later, b"log") == b"one\nthree\ntwo\n"


@pytest.mark.parametrize("was_made", [False, True])
def test_appended_data_in_doubt_is_looked_for(left: Left, was_made: bool) -> None:
    write_file(left.vfs, b"log", b"one\n")
    write(left.vfs, b"log", 0, b"two\n", os.O_APPEND)
    what = left.end()
    (file,) = what.manifest.files
    doubtful = msgspec.structs.replace(file, is_doubtful=True)
    what.manifest = msgspec.structs.replace(what.manifest, files=(doubtful,))
    write(left.later, b"log", 0, b"two\n" if was_made else b"three\n", os.O_APPEND)
    handle = left.later.open(left.later.lookup(ROOT, b"log").ino, os.O_WRONLY)
    left.later.fsync(handle)
    left.later.release(handle)
    (done,) = left.apply(what)
    assert done.action is (Action.NOTHING if was_made else Action.BESIDE)
    assert read_file(left.later, b"log") == (b"one\ntwo\n" if was_made else b"one\nthree\n")


@pytest.mark.parametrize(
    ("made", "action"),
    [(b"", Action.AT_THE_END), (b"two\n", Action.BESIDE), (b"two\nthree\n", Action.NOTHING)],
)
def test_the_state_that_the_mount_knew_may_be_that_after_its_batch_in_doubt(
    left: Left, made: bytes, action: Action
) -> None:
    """That state does not tell whether the batch was made, in part or not at all."""
    write_file(left.vfs, b"log", b"one\n")
    handle = left.vfs.open(left.vfs.lookup(ROOT, b"log").ino, os.O_WRONLY | os.O_APPEND)
    for line in (b"two\n", b"three\n"):
        left.vfs.write(handle, 0, line)
    what = left.end()
    handle = left.later.open(left.later.lookup(ROOT, b"log").ino, os.O_WRONLY | os.O_APPEND)
    left.later.write(handle, 0, made)
    left.later.fsync(handle)
    left.later.release(handle)
    (file,) = what.manifest.files
    known = msgspec.structs.replace(file, is_doubtful=True, state=left.later.content_state(file.inode, file.regions))
    what.manifest = msgspec.structs.replace(what.manifest, files=(known,))
    (done,) = left.apply(what)
    assert done.action is action
    log = read_file(left.later, b"log")
    assert log == b"one\n" + (made or b"two\nthree\n"), "no byte may be appended twice"


def test_appended_data_that_looks_like_what_was_there_before_is_not_taken_for_it(left: Left) -> None:
    write_file(left.vfs, b"log", b"tick\n")
    write(left.vfs, b"log", 0, b"tick\n", os.O_APPEND)
    what = left.end()
    (file,) = what.manifest.files
    doubtful = msgspec.structs.replace(file, is_doubtful=True, state=b"another")
    what.manifest = msgspec.structs.replace(what.manifest, files=(doubtful,))
    (done,) = left.apply(what)
    assert done.action is Action.BESIDE and done.beside is not None, "the file's state shows that others changed it"
    assert read_file(left.later, done.beside[1:]) == bytes(5) + b"tick\n"


def test_segments_that_are_up_are_read_from_the_servers(left: Left) -> None:
    _, handle = create(left.vfs)
    data = random.Random(1).randbytes(2 * REGION_BYTES)
    left.vfs.write(handle, 0, data)
    left.vfs.write(handle, 5, b"over")
    what = left.end()
    assert (what.folder / "data").stat().st_size == 4
    assert [one.action for one in left.apply(what)] == [Action.IN_PLACE]
    assert read_file(left.later, b"f") == data[:5] + b"over" + data[9:]


def test_what_fails_changes_nothing_and_may_be_tried_again(left: Left) -> None:
    write_file(left.vfs, b"f", b"0123456789")
    write(left.vfs, b"f", 0, b"abc")
    what = left.end()
    left.mounts.map.is_writable = False
    with pytest.raises(ReadOnlyError):
        left.apply(what)
    left.mounts.map.is_writable = True
    assert [one.action for one in left.apply(what)] == [Action.IN_PLACE]


def test_of_many_files_one_that_fails_keeps_no_other_from_it(left: Left) -> None:
    for number in range(300):
        write_file(left.vfs, b"f%d" % number, b"0123456789")
        write(left.vfs, b"f%d" % number, 0, b"new%d" % number)
    what = left.end()
    saved = left.mounts.segments.before_write

    def refuse(data: bytes) -> None:
        if data == b"new7":
            raise NoSpaceError("too few servers have room")

    left.mounts.segments.before_write = refuse
    applier = Applier(left.later, left.mounts.segments, left._pass)
    outcomes = {file.path: outcome for file, outcome in applier.apply(what, what.manifest.files, lambda _: None)}
    failed = [path for path, outcome in outcomes.items() if isinstance(outcome, Exception)]
    assert (len(outcomes), failed) == (300, [b"f7"])
    assert read_file(left.later, b"f299") == b"new2996789"
    left.mounts.segments.before_write = saved


def test_what_was_begun_beside_and_fails_is_removed(left: Left) -> None:
    write_file(left.vfs, b"f", b"0123456789")
    write(left.vfs, b"f", 0, b"old")
    what = left.end()
    write_file(left.later, b"f", b"NEWER CONTENT")

    def refuse(_: bytes) -> None:
        raise NoSpaceError("too few servers have room")

    left.mounts.segments.before_write = refuse
    with pytest.raises(NoSpaceError):
        left.apply(what)
    assert names(left.later) == [b"f"]


def test_bytes_that_are_not_what_they_were_are_not_applied(left: Left) -> None:
    write_file(left.vfs, b"f", b"0123456789")
    write(left.vfs, b"f", 0, b"abc")
    what = left.end()
    (what.folder / "data").write_bytes(b"abx")
    with pytest.raises(KeptError, match="not what was written"):
        left.apply(what)
    assert read_file(left.later, b"f") == b"0123456789"
    write_file(left.later, b"f", b"NEWER")
    with pytest.raises(KeptError):
        left.apply(what)
    assert names(left.later) == [b"f"]
