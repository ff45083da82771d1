"""What becomes of a file whose last name is gone."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

import pytest
from support.executors import Held
from support.memory_mounts import CALLER, HOLDER, ROOT, MemoryMounts, close, read_file, write_file

from dfsfuse.data.extents import REGION_BYTES
from dfsfuse.errors import MaybeDoneError
from dfsfuse.namespace.map.transactions import Transaction
from dfsfuse.vfs.vfs import AttributeChanges, Vfs
from dfsfuse.vfs.write.regions import STEP_REGIONS


def left(mounts: MemoryMounts) -> list[bytes]:
    """The kinds of keys that are left, apart from the root and the counter."""
    return sorted(key[:2] for key in mounts.map.items if key not in (b"n", b"i/" + (1).to_bytes(8, "big")))


def sparse(vfs: Vfs, name: bytes, regions: int) -> int:
    """A file with one byte in each of `count` regions."""
    attributes, handle = vfs.create(ROOT, name, 0o644, os.O_RDWR, CALLER)
    for index in range(regions):
        vfs.write(handle, index * REGION_BYTES, b"x")
    close(vfs, handle)
    return attributes.ino


def test_a_small_file_goes_in_one_batch_with_its_name(mounts: MemoryMounts) -> None:
    vfs = mounts.mount()
    write_file(vfs, b"f", bytes(2 * REGION_BYTES))
    before = len(mounts.map.batches)
    vfs.unlink(ROOT, b"f")
    assert len(mounts.map.batches) == before + 1
    assert len(mounts.map.batches[-1].drops) == 2
    assert left(mounts) == []


def test_a_file_stays_while_another_name_is_left(mounts: MemoryMounts) -> None:
    vfs = mounts.mount()
    ino = write_file(vfs, b"f", b"data")
    vfs.link(ino, ROOT, b"g")
    vfs.unlink(ROOT, b"f")
    assert read_file(vfs, b"g") == b"data"
    assert vfs.getattr(ino).nlink == 1
    vfs.unlink(ROOT, b"g")
    assert left(mounts) == []


def test_an_open_file_is_used_on_and_goes_with_its_last_handle(mounts: MemoryMounts) -> None:
    vfs = mounts.mount()
    ino = write_file(vfs, b"f", b"data")
    one, two = vfs.open(ino, os.O_RDWR), vfs.open(ino, os.O_RDONLY)
    vfs.unlink(ROOT, b"f")
    assert vfs.getattr(ino).nlink == 0
    assert left(mounts) == [b"e/", b"i/", b"o/"]
    vfs.write(one, 4, b" more")
    close(vfs, one)
    assert vfs.read(two, 0, 100) == b"data more"
    vfs.fsync(two)
    with pytest.raises(OSError) as caught:
        vfs.link(ino, ROOT, b"again")
    assert caught.value.errno == errno.ENOENT
    close(vfs, two)
    assert left(mounts) == []
    assert vfs._uploads.budget.held_bytes == 0


def test_a_temporary_file_without_a_name_is_not_saved_for_nothing(mounts: MemoryMounts) -> None:
    vfs = mounts.mount()
    _, handle = vfs.create(ROOT, b"f", 0o600, os.O_RDWR, CALLER)
    vfs.unlink(ROOT, b"f")
    vfs.write(handle, 0, b"scratch")
    close(vfs, handle)
    assert mounts.segments.written == []
    assert left(mounts) == []
    assert vfs._uploads.budget.held_bytes == 0


def test_what_went_up_for_a_file_without_a_name_is_dropped(mounts: MemoryMounts) -> None:
    vfs = mounts.mount()
    _, handle = vfs.create(ROOT, b"f", 0o600, os.O_RDWR, CALLER)
    vfs.write(handle, 0, bytes(3 * REGION_BYTES))
    vfs.unlink(ROOT, b"f")
    close(vfs, handle)
    assert len(mounts.segments.written) == len(set(mounts.map.drops)) == 3
    assert left(mounts) == []


def test_what_is_given_up_but_may_have_been_saved_is_not_dropped(mounts: MemoryMounts) -> None:
    vfs = mounts.mount()
    ino, handle = vfs.create(ROOT, b"f", 0o600, os.O_RDWR, CALLER)
    vfs.write(handle, 0, bytes(300_000))
    commit = mounts.map.transact

    def no_answer(work: Callable[[Transaction], object], *, durable: bool = True) -> object:
        commit(work)
        mounts.map.transact = commit  # type: ignore[method-assign]
        raise MaybeDoneError("no answer in time")

    mounts.map.transact = no_answer  # type: ignore[method-assign, assignment]
    with pytest.raises(MaybeDoneError):
        vfs.flush(handle)
    vfs.unlink(ROOT, b"f")
    file = vfs._files._table.get(ino.ino)
    assert file is not None
    vfs._reaper.drop_later(ino.ino, vfs._uploads.forget(file))
    assert mounts.map.drops == []
    close(vfs, handle)


def test_a_file_that_rename_replaces_is_unlinked_too(mounts: MemoryMounts) -> None:
    vfs = mounts.mount()
    old = write_file(vfs, b"old", b"old")
    write_file(vfs, b"new", b"new")
    handle = vfs.open(old, os.O_RDONLY)
    vfs.rename(ROOT, b"new", ROOT, b"old")
    assert vfs.read(handle, 0, 10) == b"old"
    assert read_file(vfs, b"old") == b"new"
    vfs.release(handle)
    assert left(mounts) == [b"d/", b"e/", b"i/"]


def test_a_long_file_is_deleted_in_bounded_steps(mounts: MemoryMounts) -> None:
    background = Held()
    vfs = mounts.mount(background=background)
    regions = 2 * STEP_REGIONS + 10
    sparse(vfs, b"f", regions)
    before = len(mounts.map.batches)
    vfs.unlink(ROOT, b"f")
    assert vfs.list_folder(ROOT) == []
    assert left(mounts).count(b"e/") == regions
    background.run()
    assert left(mounts) == []
    steps = mounts.map.batches[before:]
    assert len(steps) == 4
    assert max(len(batch.deletes) for batch in steps) <= STEP_REGIONS + 2
    assert len(set(mounts.map.drops)) == regions


def test_a_sparse_file_of_any_size_is_deleted_quickly(mounts: MemoryMounts) -> None:
    vfs = mounts.mount()
    ino = sparse(vfs, b"f", 20)
    vfs.setattr(ino, AttributeChanges(size=2**62))
    vfs.unlink(ROOT, b"f")
    assert left(mounts) == []


def test_a_deletion_that_fails_leaves_the_file_marked(mounts: MemoryMounts) -> None:
    background = Held()
    vfs = mounts.mount(background=background)
    sparse(vfs, b"f", 20)
    vfs.unlink(ROOT, b"f")
    mounts.map.is_writable = False
    background.run()
    assert b"o/" in left(mounts)
    mounts.map.is_writable = True


def test_an_unlink_that_fails_changes_nothing(mounts: MemoryMounts) -> None:
    vfs = mounts.mount()
    ino = write_file(vfs, b"f", b"data")
    mounts.map.is_writable = False
    with pytest.raises(Exception, match="do not answer"):
        vfs.unlink(ROOT, b"f")
    mounts.map.is_writable = True
    handle = vfs.open(ino, os.O_RDONLY)
    assert vfs.read(handle, 0, 10) == b"data"
    vfs.release(handle)


def test_another_mounts_unlink_makes_an_open_file_stale_and_no_worse(mounts: MemoryMounts) -> None:
    vfs, other = mounts.mount(), mounts.mount()
    ino = write_file(vfs, b"f", b"data")
    handle = vfs.open(ino, os.O_RDWR)
    vfs.write(handle, 0, b"x" * 200_000)
    other.unlink(ROOT, b"f")
    with pytest.raises(OSError) as caught:
        vfs.fsync(handle)
    assert caught.value.errno == errno.ESTALE
    with pytest.raises(OSError) as caught:
        vfs.read(handle, 0, 10)
    assert caught.value.errno == errno.ESTALE
    close(vfs, handle)
    assert left(mounts) == []
    assert len(mounts.map.drops) == 2  # including the segment that nothing will ever refer to


def test_what_was_looked_up_outlives_its_name_until_it_is_forgotten(mounts: MemoryMounts) -> None:
    """As on a local disk, when another program unlinks the file between a program's lookup and its open."""
    vfs = mounts.mount()
    ino = write_file(vfs, b"f", b"data")
    assert vfs.lookup(ROOT, b"f", HOLDER).ino == ino
    assert vfs.lookup(ROOT, b"f", HOLDER).ino == ino
    vfs.unlink(ROOT, b"f")
    assert left(mounts) == [b"e/", b"i/", b"o/"]
    handle = vfs.open(ino, os.O_RDWR)
    assert vfs.read(handle, 0, 100) == b"data"
    vfs.write(handle, 0, b"scratch")
    vfs.forget(ino, 2)
    assert vfs.read(handle, 0, 100) == b"scratch"
    close(vfs, handle)
    assert left(mounts) == []


def test_it_may_be_opened_and_closed_before_it_is_forgotten(mounts: MemoryMounts) -> None:
    vfs = mounts.mount()
    attributes, handle = vfs.create(ROOT, b"f", 0o600, os.O_RDWR, HOLDER)
    vfs.unlink(ROOT, b"f")
    close(vfs, handle)
    for _ in range(2):
        close(vfs, vfs.open(attributes.ino, os.O_RDONLY))
        assert vfs.getattr(attributes.ino).nlink == 0
    vfs.forget(attributes.ino, 1)
    assert left(mounts) == []
    with pytest.raises(FileNotFoundError):
        vfs.open(attributes.ino, os.O_RDONLY)


def test_what_rename_replaces_is_held_too(mounts: MemoryMounts) -> None:
    vfs = mounts.mount()
    old = write_file(vfs, b"f", b"old")
    new = write_file(vfs, b"g", b"new")
    vfs.lookup(ROOT, b"f", HOLDER)
    vfs.rename(ROOT, b"g", ROOT, b"f")
    assert vfs.lookup(ROOT, b"f", HOLDER).ino == new
    handle = vfs.open(old, os.O_RDONLY)
    assert vfs.read(handle, 0, 100) == b"old"
    close(vfs, handle)
    vfs.forget(old)
    assert left(mounts) == [b"d/", b"e/", b"i/"]


def test_nothing_is_kept_for_what_was_forgotten(mounts: MemoryMounts) -> None:
    vfs = mounts.mount()
    ino = write_file(vfs, b"f", b"data")
    vfs.lookup(ROOT, b"f", HOLDER)
    vfs.forget(ino, 1)
    before = len(mounts.map.batches)
    vfs.unlink(ROOT, b"f")
    assert len(mounts.map.batches) == before + 1
    assert left(mounts) == []


def test_a_removed_folder_that_somebody_is_in(mounts: MemoryMounts) -> None:
    vfs = mounts.mount()
    folder = vfs.mkdir(ROOT, b"d", 0o755, HOLDER).ino
    vfs.mkdir(ROOT, b"empty", 0o755, CALLER)
    target = vfs.mkdir(ROOT, b"target", 0o755, HOLDER).ino
    write_file(vfs, b"f", b"x")
    vfs.rmdir(ROOT, b"d")
    vfs.rename(ROOT, b"empty", ROOT, b"target")
    for gone in (folder, target):
        assert (vfs.getattr(gone).nlink, vfs.list_folder(gone)) == (0, [])
        for attempt in (
            lambda gone=gone: vfs.lookup(gone, b"x"),
            lambda gone=gone: vfs.mkdir(gone, b"x", 0o755, CALLER),
            lambda gone=gone: vfs.create(gone, b"x", 0o644, os.O_RDWR, CALLER),
            lambda gone=gone: vfs.rename(ROOT, b"f", gone, b"x"),
            lambda gone=gone: vfs.link(vfs.lookup(ROOT, b"f").ino, gone, b"x"),
        ):
            with pytest.raises(FileNotFoundError):
                attempt()
        vfs.forget(gone)
    vfs.unlink(ROOT, b"f")
    vfs.rmdir(ROOT, b"target")
    assert left(mounts) == []


def test_links_and_fifos_are_held_as_well(mounts: MemoryMounts) -> None:
    vfs = mounts.mount()
    link = vfs.symlink(ROOT, b"l", b"target", HOLDER).ino
    fifo = vfs.mknod(ROOT, b"p", 0o010644, 0, HOLDER).ino
    vfs.unlink(ROOT, b"l")
    vfs.unlink(ROOT, b"p")
    assert vfs.readlink(link) == b"target"
    assert vfs.getattr(fifo).nlink == 0
    vfs.forget(link)
    vfs.forget(fifo)
    assert left(mounts) == []


def test_what_is_held_at_the_end_of_a_mount_goes(mounts: MemoryMounts) -> None:
    vfs = mounts.mount()
    _, handle = vfs.create(ROOT, b"f", 0o600, os.O_RDWR, HOLDER)
    vfs.write(handle, 0, b"x")
    vfs.fsync(handle)
    vfs.mkdir(ROOT, b"d", 0o755, HOLDER)
    vfs.unlink(ROOT, b"f")
    vfs.rmdir(ROOT, b"d")
    assert b"o/" in left(mounts)
    vfs.close()
    assert left(mounts) == []


def test_a_failed_creation_holds_nothing(mounts: MemoryMounts) -> None:
    vfs = mounts.mount()
    write_file(vfs, b"f", b"x")
    with pytest.raises(FileExistsError):
        vfs.mkdir(ROOT, b"f", 0o755, HOLDER)
    assert vfs._table._held == {}


def test_a_look_up_after_the_decision_to_delete_does_not_find_it(mounts: MemoryMounts) -> None:
    """The lookup comes between the decision and the commit; the inode that it would get is about to disappear."""
    vfs = mounts.mount()
    write_file(vfs, b"f", b"x")
    found: list[str] = []

    def look(_: object) -> None:
        try:
            vfs.lookup(ROOT, b"f", HOLDER)
        except FileNotFoundError:
            found.append("nothing")

    mounts.map.before_commit = look
    vfs.unlink(ROOT, b"f")
    assert found == ["nothing"]
    assert vfs._table._held == {}
    assert left(mounts) == []
