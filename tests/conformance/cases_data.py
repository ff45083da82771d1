"""Conformance: a file's bytes. Reading and writing at any offset, holes, truncation, appending, open handles."""

from __future__ import annotations

import errno
import os
import random

from conformance.fs import Fs
from conformance.registry import (
    case,
    content,
    fails,
    opened,
    read_all,
    read_file,
    same,
    write_all,
    write_file,
)

KIB = 1024
MIB = 1024 * KIB
REGION = 4 * MIB
"""Files are described in regions of this size, whose borders are prone to mistakes."""
EDGES = (0, 1, 2, 3, 4, 5, 7, 4095, 4096, 128 * KIB - 1, 128 * KIB, 128 * KIB + 1, 256 * KIB + 3)
LARGE_EDGES = (MIB + 1, REGION - 1, REGION, REGION + 1, 2 * REGION + 5)


@case
def files_of_all_edge_sizes_come_back_whole(fs: Fs) -> None:
    for size in EDGES + LARGE_EDGES:
        write_file(fs, b"f%d" % size, content(size, size))
    for size in EDGES + LARGE_EDGES:
        assert fs.stat(b"f%d" % size).size == size
        same(read_file(fs, b"f%d" % size), content(size, size))


@case
def a_write_is_read_back_at_any_offset(fs: Fs) -> None:
    data = content(REGION + 300 * KIB)
    write_file(fs, b"f", data)
    with opened(fs, b"f", os.O_RDONLY) as fd:
        for offset in (0, 1, 65535, 65536, MIB - 3, MIB, REGION - 1, REGION, REGION + 1, len(data) - 1):
            for size in (1, 2, 4096, 65537, 131072):
                same(fs.pread(fd, size, offset), data[offset : offset + size])


@case
def an_overwrite_in_the_middle_changes_only_its_bytes(fs: Fs) -> None:
    expected = bytearray(content(3 * REGION))
    write_file(fs, b"f", bytes(expected))
    with opened(fs, b"f", os.O_WRONLY) as fd:
        for seed, (offset, size) in enumerate(
            ((100, 10), (REGION - 5, 10), (REGION, 4096), (2 * REGION - 1, REGION + 1))
        ):
            patch = content(size, 100 + seed)
            write_all(fs, fd, patch, offset)
            expected[offset : offset + size] = patch
    same(read_file(fs, b"f"), bytes(expected))


@case
def many_overwrites_of_one_block_keep_the_last(fs: Fs) -> None:
    write_file(fs, b"f", content(64 * KIB))
    for turn in range(40):
        with opened(fs, b"f", os.O_WRONLY) as fd:
            write_all(fs, fd, content(4096, turn), 8192)
    data = content(64 * KIB)
    same(read_file(fs, b"f"), data[:8192] + content(4096, 39) + data[12288:])


@case
def small_writes_in_any_order_make_one_file(fs: Fs) -> None:
    data = content(300 * 1000)
    order = list(range(0, len(data), 1000))
    random.Random(1).shuffle(order)
    with opened(fs, b"f") as fd:
        for offset in order:
            write_all(fs, fd, data[offset : offset + 1000], offset)
    same(read_file(fs, b"f"), data)


@case
def random_work_matches_a_model(fs: Fs) -> None:
    """Writes, truncations, reopens and reads across three regions, compared with a bytearray."""
    chance = random.Random(20)
    model = bytearray()
    for turn in range(12):
        with opened(fs, b"f") as fd:
            for step in range(8):
                if chance.random() < 0.2:
                    length = chance.randrange(0, 3 * REGION)
                    fs.ftruncate(fd, length)
                    model[length:] = b""
                    model.extend(bytes(length - len(model)))
                else:
                    offset = chance.randrange(0, 2 * REGION)
                    patch = content(chance.choice((1, 100, 4096, 70_000, 300_000)), turn * 100 + step)
                    write_all(fs, fd, patch, offset)
                    model.extend(bytes(max(0, offset - len(model))))
                    model[offset : offset + len(patch)] = patch
                offset = chance.randrange(0, 3 * REGION)
                same(fs.pread(fd, 5000, offset), bytes(model[offset : offset + 5000]))
        assert fs.stat(b"f").size == len(model)
        same(read_file(fs, b"f"), bytes(model))


@case
def reading_at_and_past_the_end_gives_nothing(fs: Fs) -> None:
    write_file(fs, b"f", b"12345")
    with opened(fs, b"f", os.O_RDONLY) as fd:
        assert fs.pread(fd, 10, 3) == b"45"
        assert fs.pread(fd, 10, 5) == b""
        assert fs.pread(fd, 10, REGION * 3) == b""


@case
def a_write_past_the_end_leaves_a_hole_of_zeros(fs: Fs) -> None:
    with opened(fs, b"f") as fd:
        write_all(fs, fd, b"start", 0)
        write_all(fs, fd, b"end", 2 * REGION + 10)
        assert fs.fstat(fd).size == 2 * REGION + 13
        same(fs.pread(fd, 8192, REGION - 4096), bytes(8192))
    same(read_file(fs, b"f"), b"start" + bytes(2 * REGION + 5) + b"end")


@case
def offsets_beyond_32_bits_work(fs: Fs) -> None:
    far = (1 << 40) + 12345
    with opened(fs, b"f") as fd:
        write_all(fs, fd, b"low", (1 << 32) - 1)
        write_all(fs, fd, b"far", far)
    assert fs.stat(b"f").size == far + 3
    with opened(fs, b"f", os.O_RDONLY) as fd:
        assert fs.pread(fd, 5, (1 << 32) - 2) == b"\0low\0"
        assert fs.pread(fd, 100, far - 1) == b"\0far"
    fs.truncate(b"f", 10)
    assert read_file(fs, b"f") == bytes(10)


@case
def truncating_cuts_and_extends(fs: Fs) -> None:
    data = content(REGION + 1000)
    for by_handle in (False, True):
        write_file(fs, b"f", data)
        with opened(fs, b"f", os.O_RDWR) as fd:
            for length in (REGION + 999, REGION, REGION - 1, 4096, 5, 0):
                if by_handle:
                    fs.ftruncate(fd, length)
                else:
                    fs.truncate(b"f", length)
                assert fs.stat(b"f").size == length
                same(read_all(fs, fd), data[:length])
            fs.ftruncate(fd, REGION + 7)
            assert fs.stat(b"f").size == REGION + 7
            same(read_all(fs, fd), bytes(REGION + 7))


@case
def old_bytes_do_not_come_back_after_truncating_both_ways(fs: Fs) -> None:
    write_file(fs, b"f", b"x" * 10_000)
    fs.truncate(b"f", 100)
    fs.truncate(b"f", 10_000)
    same(read_file(fs, b"f"), b"x" * 100 + bytes(9_900))
    write_file(fs, b"g", b"y" * (REGION + 100))
    with opened(fs, b"g", os.O_RDWR) as fd:
        fs.ftruncate(fd, 50)
        write_all(fs, fd, b"z", REGION + 50)
        same(read_all(fs, fd), b"y" * 50 + bytes(REGION) + b"z")


@case
def truncating_an_unflushed_write_cuts_it(fs: Fs) -> None:
    with opened(fs, b"f") as fd:
        write_all(fs, fd, b"x" * 1000)
        fs.ftruncate(fd, 10)
        write_all(fs, fd, b"end", 20)
        same(read_all(fs, fd), b"x" * 10 + bytes(10) + b"end")
    same(read_file(fs, b"f"), b"x" * 10 + bytes(10) + b"end")


@case
def truncating_what_cannot_be_truncated_says_why(fs: Fs) -> None:
    fs.mkdir(b"d")
    with fails(errno.EISDIR):
        fs.truncate(b"d", 0)
    with fails(errno.ENOENT):
        fs.truncate(b"missing", 0)


@case
def appends_go_to_the_end(fs: Fs) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    with opened(fs, b"f", flags) as one, opened(fs, b"f", flags) as other:
        for turn in range(20):
            fs.append(one, b"one %d\n" % turn)
            fs.append(other, b"other %d\n" % turn)
    same(read_file(fs, b"f"), b"".join(b"one %d\nother %d\n" % (turn, turn) for turn in range(20)))


@case
def an_append_after_another_handle_truncated_starts_at_the_new_end(fs: Fs) -> None:
    write_file(fs, b"f", b"0123456789")
    with opened(fs, b"f", os.O_WRONLY | os.O_APPEND) as fd:
        fs.append(fd, b"ab")
        fs.truncate(b"f", 3)
        fs.append(fd, b"cd")
    assert read_file(fs, b"f") == b"012cd"


@case
def a_write_is_seen_by_other_handles_at_once(fs: Fs) -> None:
    with opened(fs, b"f") as writer, opened(fs, b"f", os.O_RDONLY) as reader:
        write_all(fs, writer, b"first")
        assert fs.pread(reader, 100, 0) == b"first"
        assert fs.fstat(reader).size == 5
        write_all(fs, writer, b"second", 3)
        assert fs.pread(reader, 100, 0) == b"firsecond"
        assert fs.stat(b"f").size == 9


@case
def two_handles_write_different_parts(fs: Fs) -> None:
    data = content(512 * KIB)
    half = len(data) // 2 + 3
    with opened(fs, b"f") as one, opened(fs, b"f") as other:
        write_all(fs, other, data[half:], half)
        write_all(fs, one, data[:half])
    same(read_file(fs, b"f"), data)


@case
def fsync_makes_a_write_last_and_the_handle_stays_usable(fs: Fs) -> None:
    with opened(fs, b"f") as fd:
        write_all(fs, fd, b"one")
        fs.fsync(fd)
        same(read_file(fs, b"f"), b"one")
        write_all(fs, fd, b"two", 3)
        fs.fsync(fd)
        fs.fsync(fd)
    same(read_file(fs, b"f"), b"onetwo")


@case
def an_unlinked_file_lives_while_it_is_open(fs: Fs) -> None:
    with opened(fs, b"f") as fd:
        write_all(fs, fd, b"before")
        fs.unlink(b"f")
        with fails(errno.ENOENT):
            fs.stat(b"f")
        write_all(fs, fd, b" after", 6)
        assert fs.fstat(fd).size == 12
        same(read_all(fs, fd), b"before after")
        fs.ftruncate(fd, 3)
        same(read_all(fs, fd), b"bef")
        write_file(fs, b"f", b"another")
        same(read_all(fs, fd), b"bef")
    assert read_file(fs, b"f") == b"another"


@case
def an_unlinked_open_file_has_no_name(fs: Fs) -> None:
    fs.mkdir(b"d")
    with opened(fs, b"d/f") as fd:
        fs.unlink(b"d/f")
        assert fs.listdir(b"d") == []
        assert fs.fstat(fd).nlink == 0
        fs.rmdir(b"d")


@case
def a_committed_file_that_is_unlinked_while_open_can_be_read(fs: Fs) -> None:
    data = content(REGION + 5)
    write_file(fs, b"f", data)
    with opened(fs, b"f", os.O_RDONLY) as fd:
        fs.unlink(b"f")
        same(read_all(fs, fd), data)


@case
def a_handle_outlives_a_rename_and_a_replacement(fs: Fs) -> None:
    write_file(fs, b"a", b"old a")
    write_file(fs, b"b", b"old b")
    with opened(fs, b"a", os.O_RDWR) as first, opened(fs, b"b", os.O_RDWR) as second:
        fs.rename(b"a", b"b")
        same(read_all(fs, first), b"old a")
        same(read_all(fs, second), b"old b")
        write_all(fs, first, b"NEW")
        write_all(fs, second, b"lost")
    assert read_file(fs, b"b") == b"NEW a"
    assert fs.listdir(b"") == [b"b"]


@case
def an_empty_write_changes_nothing(fs: Fs) -> None:
    write_file(fs, b"f", b"abc")
    with opened(fs, b"f", os.O_WRONLY) as fd:
        assert fs.pwrite(fd, b"", 1000) == 0
    assert read_file(fs, b"f") == b"abc"
