"""Records survive being stored, and anything that is not a record is refused."""

from __future__ import annotations

import errno
import stat

import msgspec
import pytest

from dfsfuse.namespace.ops import inodes
from dfsfuse.namespace.records import inode as records
from dfsfuse.namespace.records.inode import Entry


def test_an_inode_comes_back_as_it_was() -> None:
    made = inodes.new(stat.S_IFREG | 0o640, 7, 8, 123)
    made = msgspec.structs.replace(made, rotation=3, xattrs={b"user.a": b"\xff"}, size=2**63 - 1)
    assert records.decode_inode(records.encode(made)) == made


def test_an_entry_comes_back_as_it_was() -> None:
    made = Entry(records.FORMAT, 2**63, stat.S_IFDIR)
    assert records.decode_entry(records.encode(made)) == made
    assert made.is_directory and not made.is_file


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x90", msgspec.msgpack.encode([2, 1, 16384]), b"\x93\x01\xa1x\x02"])
def test_what_is_no_record_of_this_format_is_an_io_error(data: bytes) -> None:
    for decode in (records.decode_entry, records.decode_inode):
        with pytest.raises(OSError) as caught:
            decode(data)
        assert caught.value.errno == errno.EIO


def test_an_inode_of_another_format_is_refused() -> None:
    other = msgspec.structs.replace(inodes.new(stat.S_IFREG, 0, 0, 0), format=2)
    with pytest.raises(OSError, match="format 2"):
        records.decode_inode(records.encode(other))


def test_inodes_that_are_read_again_are_not_decoded_again() -> None:
    small = records.encode(inodes.new(stat.S_IFREG | 0o644, 1, 2, 3))
    assert records.decode_inode(small) is records.decode_inode(bytes(bytearray(small)))


def test_what_is_kept_decoded_is_bounded() -> None:
    link = records.encode(inodes.new(stat.S_IFLNK | 0o777, 1, 2, 3, target=b"x" * records.KNOWN_MAX_BYTES))
    assert records.decode_inode(link) is not records.decode_inode(link)
