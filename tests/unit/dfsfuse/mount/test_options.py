"""The options after -o."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from dfsfuse.mount.options import DEFAULT_CACHE_BYTES, OptionError, known, named, parse
from dfsfuse.vfs.health.incomplete import Policy


def test_defaults_of_a_user() -> None:
    options = parse([], as_root=False)
    assert (options.durability, options.binding, options.cache_bytes) == ("close", "auto", DEFAULT_CACHE_BYTES)
    assert options.log_file is None
    assert not options.read_only
    assert options.fuse["default_permissions"] is True
    assert options.fuse["subtype"] == "dfs"
    assert "allow_other" not in options.fuse


def test_roots_mount_is_open_to_all_with_the_kernel_checking() -> None:
    fuse = parse([], as_root=True).fuse
    assert fuse["allow_other"] is True
    assert fuse["default_permissions"] is True


def test_the_kernel_binding_takes_large_requests_and_keeps_attributes() -> None:
    fuse = parse(["binding=fusepy", "binding=kernel"], as_root=False).fuse
    assert (fuse["max_write"], fuse["attr_timeout"]) == (str(1 << 20), "1")
    assert "big_writes" not in fuse
    assert parse(["binding=kernel,attr_timeout=0"], as_root=False).fuse["attr_timeout"] == "0"
    with pytest.raises(OptionError, match="allow_root"):
        parse(["binding=kernel,allow_root"], as_root=True)
    assert parse(["binding=kernel,binding=auto"], as_root=False).fuse == parse([], as_root=False).fuse


def test_lists_are_read_in_order_and_the_last_word_counts() -> None:
    options = parse(["durability=fsync,ro", "durability=close,rw,attr_timeout=1"], as_root=False)
    assert options.durability == "close"
    assert not options.read_only
    assert "rw" not in options.fuse
    assert options.fuse["attr_timeout"] == "1"


def test_the_rate_of_healing() -> None:
    assert parse([], as_root=False).heal_mb_s == 32
    assert parse(["heal_mb_s=0"], as_root=False).heal_mb_s == 0
    assert parse(["heal_mb_s=2.5,binding=kernel"], as_root=False).heal_mb_s == 2.5
    with pytest.raises(OptionError, match="megabytes a second"):
        parse(["heal_mb_s=fast"], as_root=False)


def test_how_long_operations_wait_for_servers() -> None:
    assert parse([], as_root=False).wait_s == 0
    for binding in ("kernel", "fusepy", "auto"):
        assert parse([f"wait=2.5,binding={binding}"], as_root=False).wait_s == 2.5
    with pytest.raises(OptionError, match="number of seconds"):
        parse(["wait=long"], as_root=False)


def test_opposites_replace_each_other() -> None:
    fuse = parse(["suid,nosuid,allow_root"], as_root=True).fuse
    assert fuse["nosuid"] is True
    assert fuse["allow_root"] is True
    assert not {"suid", "allow_other"} & fuse.keys()


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("", "relatime"),
        ("strictatime", "strictatime"),
        ("noatime,strictatime", "strictatime"),
        ("strictatime,noatime", "noatime"),
        ("noatime,atime", "relatime"),
        ("strictatime,ro", "noatime"),
    ],
)
def test_times_of_access(text: str, rule: str) -> None:
    options = parse([text], as_root=False)
    assert options.atime == rule
    assert options.diratime
    without = parse([f"{text},nodiratime"], as_root=False)
    assert (without.atime, without.diratime) == (rule, False)
    assert "strictatime" not in options.fuse, "fusermount does not know this option"


@pytest.mark.parametrize(
    ("text", "size_bytes"), [("0", 0), ("4096", 4096), ("64M", 64 << 20), ("1g", 1 << 30), ("8KiB", 8192)]
)
def test_sizes(text: str, size_bytes: int) -> None:
    assert parse([f"cache={text}"], as_root=False).cache_bytes == size_bytes


def test_the_log_file_is_absolute_since_the_background_process_is_elsewhere() -> None:
    assert parse(["log=mount.log"], as_root=False).log_file == Path.cwd() / "mount.log"


def test_words_for_mount_are_ignored() -> None:
    words = "defaults,auto,noauto,nofail,_netdev,user,user=alice,users,comment=ours,x-systemd.automount,X-mount.mkdir"
    assert parse([words], as_root=False) == parse([], as_root=False)


def test_sloppily_read_an_unknown_option_is_left_out_but_never_a_remount() -> None:
    assert parse(["nonsense,ro"], as_root=False, sloppy=True) == parse(["ro"], as_root=False)
    with pytest.raises(OptionError, match="unmount"):
        parse(["remount,ro"], as_root=False, sloppy=True)
    with pytest.raises(OptionError, match="durability=never"):
        parse(["durability=never"], as_root=False, sloppy=True)


def test_nonempty_is_ours() -> None:
    options = parse(["nonempty"], as_root=False)
    assert options.nonempty
    assert "nonempty" not in options.fuse


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("incomlete=eio", "Did you mean incomplete=suffix|eio|eremoteio?"),
        ("noatme", "Did you mean noatime?"),
        ("wait", "expected wait=SECONDS"),
        ("durability", "expected durability=close|fsync"),
        ("ro=1", "this option takes no value"),
        ("nonempty=yes", "this option takes no value"),
        ("noatime=1", "this option takes no value"),
    ],
)
def test_a_word_that_is_nearly_an_option_is_answered_with_what_was_meant(word: str, expected: str) -> None:
    with pytest.raises(OptionError) as caught:
        parse([word], as_root=False)
    assert str(caught.value).startswith(f"-o {word}: ")
    assert expected in str(caught.value)


@pytest.mark.parametrize("word", ["durabilty=fsync", "nonsense", "fuse=1", "hard_remove"])
def test_an_unknown_option_is_refused_with_the_known_ones(word: str) -> None:
    with pytest.raises(OptionError) as caught:
        parse([word], as_root=False)
    assert word in str(caught.value)
    assert all(name in str(caught.value) for name in known())


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("durability=never", "close or fsync"),
        ("binding=pyfuse3", "auto or kernel or fusepy"),
        ("cache=much", "a size"),
        ("cache=-1", "a size"),
        ("attr_timeout=soon", "seconds"),
        ("log=", "a value"),
    ],
)
def test_a_wrong_value_is_refused_with_what_was_expected(word: str, expected: str) -> None:
    with pytest.raises(OptionError, match=expected) as caught:
        parse([word], as_root=False)
    assert word in str(caught.value)
    assert caught.value.exit_code == 2


def test_the_source_column_unless_it_was_said() -> None:
    parsed = parse(["fsname=mine"], as_root=False)
    assert named(parsed, "alice@host").fuse["fsname"] == "mine"
    parsed = parse([], as_root=False)
    assert named(parsed, "alice@host").fuse["fsname"] == "alice@host"


@pytest.mark.parametrize(
    ("text", "policy", "number"),
    [
        ("", Policy.MARK, errno.EIO),
        ("incomplete=suffix", Policy.MARK, errno.EIO),
        ("ro,incomplete=eio", Policy.REFUSE, errno.EIO),
        ("incomplete=eio,incomplete=eremoteio", Policy.REFUSE, errno.EREMOTEIO),
    ],
)
def test_what_is_shown_of_incomplete_files(text: str, policy: Policy, number: int) -> None:
    options = parse([text], as_root=False)
    assert (options.policy, options.eio) == (policy, number)


def test_incomplete_files_are_not_hidden() -> None:
    """Mirroring programs delete their copies of files that are not listed."""
    with pytest.raises(OptionError, match="expected suffix or eio or eremoteio"):
        parse(["incomplete=hide"], as_root=False)


def test_the_age_of_unsaved_data_has_bounds() -> None:
    assert parse([], as_root=False).commit_s == 1
    assert parse(["commit=0.1"], as_root=False).commit_s == 0.1
    assert parse(["commit=300,durability=fsync"], as_root=False).commit_s == 300
    for value in ("0", "0.05", "301", "soon", ""):
        with pytest.raises(OptionError, match=f"-o commit={value}: expected"):
            parse([f"commit={value}"], as_root=False)
