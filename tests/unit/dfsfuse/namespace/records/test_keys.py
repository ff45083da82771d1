"""Keys sort in the order of their numbers and names, and can be taken apart again."""

from __future__ import annotations

from dfs_server.protocol.batches import MAX_KEY_BYTES
from dfsfuse.namespace.records import keys


def test_a_folders_entries_are_one_range_without_its_neighbours() -> None:
    start, end = keys.entries(7)
    for name in (b"a", b"\xff" * 255, b"\x01", b"0", b"/"):
        assert start <= keys.entry(7, name) < end
        assert keys.name_of(keys.entry(7, name)) == name
    for other in (6, 8, 7 << 8, 0x2F, 0x30):
        assert not start <= keys.entry(other, b"a") < end


def test_regions_sort_by_index() -> None:
    made = [keys.region(3, index) for index in (0, 1, 255, 256, 2**40)]
    assert made == sorted(made)
    assert [keys.index_of(key) for key in made] == [0, 1, 255, 256, 2**40]


def test_a_range_of_regions_holds_exactly_those() -> None:
    start, end = keys.regions(3, 5, 300)
    assert start <= keys.region(3, 5) and keys.region(3, 299) < end
    assert keys.region(3, 4) < start and keys.region(3, 300) >= end
    start, end = keys.all_regions(3)
    assert start <= keys.region(3, 0) and keys.region(3, keys.MAX_NUMBER) < end <= keys.region(4, 0)


def test_families_are_a_folders_entries_and_a_files_regions() -> None:
    assert keys.family_of(keys.entry(7, b"a/b")) == keys.entries(7)[0]
    assert keys.family_of(keys.region(7, 9)) == keys.all_regions(7)[0]
    assert keys.family_of(keys.inode(7)) is None
    assert keys.family_of(keys.NEXT_INODE) is None


def test_orphans_are_one_range() -> None:
    start, end = keys.orphans()
    assert start <= keys.orphan(0) and keys.orphan(keys.MAX_NUMBER) < end
    assert keys.orphan_of(keys.orphan(99)) == 99


def test_no_key_is_longer_than_servers_take() -> None:
    assert len(keys.entry(keys.MAX_NUMBER, b"x" * 255)) < MAX_KEY_BYTES
