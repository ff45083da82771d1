"""Conformance: names and the tree. Creating, opening, removing, renaming, folders and listings, odd names."""

from __future__ import annotations

import errno
import os
import stat

from conformance.fs import Fs
from conformance.registry import case, fails, opened, read_file, write_file


@case
def creating_makes_an_empty_file(fs: Fs) -> None:
    with opened(fs, b"f", os.O_WRONLY | os.O_CREAT, 0o640) as fd:
        assert fs.fstat(fd).size == 0
    found = fs.lstat(b"f")
    assert (found.kind, found.permissions, found.nlink, found.size) == (stat.S_IFREG, 0o640, 1, 0)
    assert (found.uid, found.gid) == (os.getuid(), os.getgid())
    assert fs.listdir(b"") == [b"f"]


@case
def opening_what_is_missing_fails(fs: Fs) -> None:
    for flags in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR | os.O_TRUNC):
        with fails(errno.ENOENT):
            fs.open(b"missing", flags)
    with fails(errno.ENOENT):
        fs.open(b"no/such", os.O_WRONLY | os.O_CREAT)


@case
def o_excl_refuses_what_exists(fs: Fs) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    write_file(fs, b"f", b"kept")
    fs.mkdir(b"d")
    fs.symlink(b"nowhere", b"dangling")
    for name in (b"f", b"d", b"dangling"):
        with fails(errno.EEXIST):
            fs.open(name, flags)
    assert read_file(fs, b"f") == b"kept"
    fs.close(fs.open(b"new", flags))


@case
def o_trunc_empties_and_keeps_the_inode(fs: Fs) -> None:
    write_file(fs, b"f", b"x" * 100_000)
    fs.chmod(b"f", 0o600)
    before = fs.stat(b"f")
    with opened(fs, b"f", os.O_WRONLY | os.O_TRUNC):
        assert fs.stat(b"f").size == 0
    after = fs.stat(b"f")
    assert (after.ino, after.permissions, after.size) == (before.ino, 0o600, 0)
    assert read_file(fs, b"f") == b""


@case
def creating_an_existing_file_opens_it_as_it_is(fs: Fs) -> None:
    write_file(fs, b"f", b"content")
    fs.chmod(b"f", 0o600)
    with opened(fs, b"f", os.O_RDWR | os.O_CREAT, 0o777) as fd:
        assert fs.pread(fd, 100, 0) == b"content"
    assert fs.stat(b"f").permissions == 0o600


@case
def folders_and_files_are_not_mistaken_for_each_other(fs: Fs) -> None:
    fs.mkdir(b"d")
    write_file(fs, b"f")
    with fails(errno.EISDIR):
        fs.open(b"d", os.O_WRONLY)
    with fails(errno.EISDIR):
        fs.open(b"d", os.O_RDWR | os.O_CREAT)
    with fails(errno.ENOTDIR):
        fs.open(b"f", os.O_RDONLY | os.O_DIRECTORY)
    for act in (fs.stat, fs.mkdir, fs.unlink, fs.rmdir, fs.listdir):
        with fails(errno.ENOTDIR):
            act(b"f/x")
    with fails(errno.ENOTDIR):
        fs.open(b"f/x", os.O_WRONLY | os.O_CREAT)
    with fails(errno.ENOTDIR):
        fs.rename(b"f/x", b"y")


@case
def mkdir_makes_a_folder_once(fs: Fs) -> None:
    fs.mkdir(b"d", 0o750)
    assert (fs.lstat(b"d").kind, fs.lstat(b"d").permissions) == (stat.S_IFDIR, 0o750)
    write_file(fs, b"f")
    fs.symlink(b"nowhere", b"s")
    for name in (b"d", b"f", b"s"):
        with fails(errno.EEXIST):
            fs.mkdir(name)
    with fails(errno.ENOENT):
        fs.mkdir(b"missing/d")
    fs.mkdir(b"d/d")
    assert fs.listdir(b"d") == [b"d"]


@case
def rmdir_takes_empty_folders_only(fs: Fs) -> None:
    fs.mkdir(b"d")
    write_file(fs, b"d/f")
    with fails(errno.ENOTEMPTY):
        fs.rmdir(b"d")
    with fails(errno.ENOTDIR):
        fs.rmdir(b"d/f")
    with fails(errno.ENOENT):
        fs.rmdir(b"missing")
    fs.symlink(b"d", b"s")
    with fails(errno.ENOTDIR):
        fs.rmdir(b"s")
    fs.unlink(b"d/f")
    fs.rmdir(b"d")
    with fails(errno.ENOENT):
        fs.stat(b"d")
    fs.mkdir(b"d")


@case
def unlink_takes_no_folders(fs: Fs) -> None:
    fs.mkdir(b"d")
    with fails(errno.EISDIR):
        fs.unlink(b"d")
    with fails(errno.ENOENT):
        fs.unlink(b"missing")
    write_file(fs, b"f")
    fs.unlink(b"f")
    with fails(errno.ENOENT):
        fs.unlink(b"f")


@case
def a_folders_link_count_tells_its_subfolders_or_nothing(fs: Fs) -> None:
    """`find` relies on it: the count is 2 plus the number of subfolders, or 1 for "unknown"."""
    fs.mkdir(b"d")
    for count, name in enumerate((b"d/1", b"d/2", b"d/3"), start=1):
        fs.mkdir(name)
        assert fs.stat(b"d").nlink in (1, 2 + count)
    fs.rmdir(b"d/1")
    fs.rename(b"d/2", b"elsewhere")
    assert fs.stat(b"d").nlink in (1, 3)


@case
def rename_moves_a_file_and_keeps_what_it_is(fs: Fs) -> None:
    fs.mkdir(b"d")
    write_file(fs, b"f", b"content")
    fs.chmod(b"f", 0o604)
    before = fs.stat(b"f")
    fs.rename(b"f", b"d/g")
    after = fs.stat(b"d/g")
    assert (after.ino, after.mode, after.mtime_ns, after.nlink) == (
        before.ino,
        before.mode,
        before.mtime_ns,
        1,
    )
    assert read_file(fs, b"d/g") == b"content"
    assert fs.listdir(b"") == [b"d"]
    with fails(errno.ENOENT):
        fs.rename(b"f", b"g")
    with fails(errno.ENOENT):
        fs.rename(b"d/g", b"missing/g")


@case
def rename_replaces_a_file(fs: Fs) -> None:
    write_file(fs, b"a", b"of a")
    write_file(fs, b"b", b"of b, longer")
    fs.rename(b"a", b"b")
    assert fs.listdir(b"") == [b"b"]
    assert read_file(fs, b"b") == b"of a"
    fs.rename(b"b", b"b")
    assert read_file(fs, b"b") == b"of a"


@case
def rename_moves_a_whole_folder(fs: Fs) -> None:
    fs.mkdir(b"d")
    fs.mkdir(b"d/e")
    write_file(fs, b"d/e/f", b"deep")
    fs.mkdir(b"other")
    fs.rename(b"d", b"other/moved")
    assert read_file(fs, b"other/moved/e/f") == b"deep"
    with fails(errno.ENOENT):
        fs.stat(b"d")
    write_file(fs, b"other/moved/e/new", b"1")
    assert sorted(fs.listdir(b"other/moved/e")) == [b"f", b"new"]


@case
def rename_refuses_what_would_break_the_tree(fs: Fs) -> None:
    fs.mkdir(b"d")
    fs.mkdir(b"d/e")
    fs.mkdir(b"d/e/f")
    for target in (b"d/x", b"d/e/x", b"d/e/f/x"):
        with fails(errno.EINVAL):
            fs.rename(b"d", target)
    with fails(errno.ENOTEMPTY, errno.EEXIST):
        fs.rename(b"d/e/f", b"d")
    assert fs.listdir(b"d/e") == [b"f"]


@case
def rename_onto_a_folder_needs_an_empty_folder(fs: Fs) -> None:
    fs.mkdir(b"from")
    write_file(fs, b"from/f", b"1")
    fs.mkdir(b"full")
    write_file(fs, b"full/g", b"2")
    fs.mkdir(b"empty")
    write_file(fs, b"file", b"3")
    with fails(errno.ENOTEMPTY, errno.EEXIST):
        fs.rename(b"from", b"full")
    with fails(errno.ENOTDIR):
        fs.rename(b"from", b"file")
    with fails(errno.EISDIR):
        fs.rename(b"file", b"empty")
    fs.rename(b"from", b"empty")
    assert read_file(fs, b"empty/f") == b"1"
    assert sorted(fs.listdir(b"")) == [b"empty", b"file", b"full"]


@case
def a_listing_has_every_name_once(fs: Fs) -> None:
    """2,000 entries of three kinds, then half of them removed and others added."""
    fs.mkdir(b"d")
    names = {b"name-%04d" % number for number in range(2000)}
    for number, name in enumerate(sorted(names)):
        if number % 100 == 0:
            fs.mkdir(b"d/" + name)
        elif number % 2:
            fs.symlink(b"x", b"d/" + name)
        else:
            fs.mknod(b"d/" + name, stat.S_IFREG | 0o644)
    listed = fs.listdir(b"d")
    assert len(listed) == 2000
    assert set(listed) == names
    for number in range(0, 300, 3):
        if number % 100:
            fs.unlink(b"d/name-%04d" % number)
        else:
            fs.rmdir(b"d/name-%04d" % number)
        names.remove(b"name-%04d" % number)
    write_file(fs, b"d/new")
    listed = fs.listdir(b"d")
    assert len(listed) == len(set(listed))
    assert set(listed) == names | {b"new"}


@case
def a_listing_shows_each_change_at_once(fs: Fs) -> None:
    fs.mkdir(b"d")
    assert fs.listdir(b"d") == []
    write_file(fs, b"d/a")
    assert fs.listdir(b"d") == [b"a"]
    fs.rename(b"d/a", b"d/b")
    assert fs.listdir(b"d") == [b"b"]
    fs.link(b"d/b", b"d/c")
    assert sorted(fs.listdir(b"d")) == [b"b", b"c"]
    fs.unlink(b"d/b")
    fs.unlink(b"d/c")
    assert fs.listdir(b"d") == []
    with fails(errno.ENOENT):
        fs.listdir(b"missing")


@case
def deep_trees_work(fs: Fs) -> None:
    path = b"d"
    for _ in range(40):
        fs.mkdir(path)
        path += b"/d"
    write_file(fs, path, b"deep")
    assert read_file(fs, path) == b"deep"
    fs.rename(b"d/d/d", b"e")
    assert read_file(fs, b"e" + b"/d" * 38) == b"deep"


ODD_NAMES = (
    *(b"with space", b" leading", b"trailing ", b"new\nline", b"tab\tbell\a", b"\x01\x7f"),
    *(b"-rf", b"--help", b".hidden", b"...", b"..x", b"*?[a]", b"$HOME", b"back\\slash", b"quote'\""),
    *(b"percent%00", b"CON", b"a:b|c<d>", b"Case", b"case"),
    *("ünïcödé".encode(), "e\u0301".encode(), "\u00e9".encode(), "日本語".encode(), "🗂️".encode()),
    *("\u202eright to left".encode(), b"\xff\xfe\x80", b"latin-1 \xe4", b"half \xe2\x82", b"\xed\xa0\x80"),
    *(b"n" * 255, b"\xff" * 255, "€".encode() * 85),
)


@case
def any_bytes_but_slash_and_zero_make_a_name(fs: Fs) -> None:
    fs.mkdir(b"d")
    for name in ODD_NAMES:
        write_file(fs, b"d/" + name, name)
    assert sorted(fs.listdir(b"d")) == sorted(ODD_NAMES)
    for name in ODD_NAMES:
        assert read_file(fs, b"d/" + name) == name
    fs.mkdir(b"e")
    for name in ODD_NAMES:
        fs.rename(b"d/" + name, b"e/" + name)
        fs.mkdir(b"d/" + name)
        fs.symlink(name, b"d/" + name + b"/link")
        assert fs.readlink(b"d/" + name + b"/link") == name
    assert sorted(fs.listdir(b"e")) == sorted(fs.listdir(b"d")) == sorted(ODD_NAMES)


@case
def a_name_of_256_bytes_is_too_long_everywhere(fs: Fs) -> None:
    long = b"n" * 256
    write_file(fs, b"f")
    fs.mkdir(b"d")
    for act in (fs.stat, fs.lstat, fs.mkdir, fs.rmdir, fs.unlink, fs.listdir, fs.readlink):
        with fails(errno.ENAMETOOLONG):
            act(long)
        with fails(errno.ENAMETOOLONG):
            act(b"d/" + long)
    with fails(errno.ENAMETOOLONG):
        fs.open(long, os.O_WRONLY | os.O_CREAT)
    with fails(errno.ENAMETOOLONG):
        fs.rename(b"f", long)
    with fails(errno.ENAMETOOLONG):
        fs.link(b"f", long)
    with fails(errno.ENAMETOOLONG):
        fs.symlink(b"x", long)
    with fails(errno.ENAMETOOLONG):
        fs.mknod(long, stat.S_IFIFO | 0o600)
    assert sorted(fs.listdir(b"")) == [b"d", b"f"]


@case
def a_name_may_end_like_our_mark_for_incomplete_files(fs: Fs) -> None:
    write_file(fs, b"f [incomplete]", b"mine")
    assert fs.listdir(b"") == [b"f [incomplete]"]
    assert read_file(fs, b"f [incomplete]") == b"mine"
    write_file(fs, b"f", b"other")
    assert sorted(fs.listdir(b"")) == [b"f", b"f [incomplete]"]
    assert (read_file(fs, b"f [incomplete]"), read_file(fs, b"f")) == (b"mine", b"other")
    fs.unlink(b"f [incomplete]")
    assert fs.listdir(b"") == [b"f"]
