"""Parsing the kernel's table of mounts: odd names chosen by other users do no harm."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from dfsfuse.mount import mount_table
from dfsfuse.mount.mount_table import Mount

OURS = rb"41 29 0:45 / /home/a\040b/dfs rw,nosuid shared:1 - fuse.dfs alice@10.0.0.1 rw,user_id=0"
PLAIN = rb"29 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw"
OURS_READ = Mount(41, 29, "0:45", "/home/a b/dfs", "fuse.dfs", "alice@10.0.0.1", 0)
PLAIN_READ = Mount(29, 1, "8:1", "/", "ext4", "/dev/sda1")


def parsed(*lines: bytes) -> list[Mount]:
    return mount_table.parse(b"".join(line + b"\n" for line in lines))


def test_lines_of_the_table() -> None:
    assert parsed(PLAIN, OURS) == [PLAIN_READ, OURS_READ]
    assert OURS_READ.is_ours and not PLAIN_READ.is_ours


@pytest.mark.parametrize("optional", ["", "shared:1 ", "shared:1 master:2 propagate_from:3 unbindable "])
def test_any_number_of_optional_fields(optional: str) -> None:
    line = f"41 29 0:45 / /mnt rw {optional}- fuse.dfs - rw".encode()
    assert parsed(line) == [Mount(41, 29, "0:45", "/mnt", "fuse.dfs", "-")]


@pytest.mark.parametrize(
    ("field", "name"),
    [
        (rb"/a\040b\011c\012d\134040", b"/a b\tc\nd\\040"),  # characters that the kernel escapes
        (b"/a\rb\x0bc\x0c\x1c\x85", b"/a\rb\x0bc\x0c\x1c\x85"),  # characters that look like line ends but are not
        ("/a\N{NO-BREAK SPACE}b\N{LINE SEPARATOR}c".encode(), "/a\N{NO-BREAK SPACE}b\N{LINE SEPARATOR}c".encode()),
        (b"/\xff\xfe", b"/\xff\xfe"),  # not UTF-8
        (rb"/x\0404", b"/x 4"),
        (b"/-", b"/-"),
    ],
)
def test_every_name_that_a_folder_can_have(field: bytes, name: bytes) -> None:
    odd, ours = parsed(b"40 29 0:44 / " + field + b" rw - tmpfs none rw", OURS)
    assert os.fsencode(odd.mountpoint) == name
    assert ours == OURS_READ


def test_the_process_that_mounts_for_autofs() -> None:
    (place,) = parsed(b"36 29 0:44 / /mnt/dfs rw,relatime - autofs systemd-1 rw,fd=35,pgrp=1,timeout=600,direct")
    assert (place.automounter, place.owner) == (1, None)
    others = parsed(b"36 29 0:44 / /a rw - tmpfs none rw,pgrp=1", PLAIN, OURS)
    assert [mount.automounter for mount in others] == [None] * 3


def test_a_source_may_be_empty_and_look_like_anything() -> None:
    assert [mount.source for mount in parsed(b"40 29 0:44 / /a rw -  tmpfs  rw")] == ["tmpfs"]
    assert [mount.source for mount in parsed(b"40 29 0:44 / /a rw - tmpfs  rw")] == [""]
    assert [mount.source for mount in parsed(rb"40 29 0:44 / /a rw - tmpfs a\040- rw")] == ["a -"]


@pytest.mark.parametrize(
    ("options", "owner"),
    [
        ("rw,user_id=1000,group_id=5", 1000),
        ("user_id=0", 0),
        ("rw,xuser_id=7", None),
        ("rw,user_id=7x", None),
        ("", None),
    ],
)
def test_the_user_that_mounted_it(options: str, owner: int | None) -> None:
    (mount,) = parsed(f"41 29 0:45 / /mnt rw - fuse.dfs - {options}".encode())
    assert mount.owner == owner


def test_a_line_that_is_none_is_left_out() -> None:
    assert parsed(b"", b"40", b"x y z", b"40 29 0:44 / /a rw shared:1 tmpfs none rw", OURS) == [OURS_READ]


def test_the_topmost_mount_shows() -> None:
    lower = b"40 29 0:44 / /mnt rw - tmpfs tmpfs rw"
    upper = b"41 40 0:45 / /mnt rw - fuse.dfs dfsfuse rw"
    for lines in ((lower, upper), (upper, lower)):  # the order of the lines is up to the kernel
        found = mount_table.topmost(parsed(PLAIN, *lines), "/mnt")
        assert found is not None and found.is_ours
    assert mount_table.topmost(parsed(PLAIN, lower), "/mnt/below") is None


@pytest.mark.parametrize("name", [b"a\nb", b"a\rb", b"a\\b c\td", b"\xff\xe9", "\N{LINE SEPARATOR}".encode()])
def test_the_real_kernels_table(tmp_path: Path, name: bytes) -> None:
    folder = os.path.join(os.fsencode(tmp_path), name)  # noqa: PTH118
    Path(os.fsdecode(folder)).mkdir()
    script = 'mount --make-rslave / && mount -t tmpfs "odd one" "$0" && cat /proc/self/mountinfo'
    table = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, folder], stdout=subprocess.PIPE, timeout=20, check=True
    ).stdout
    found = mount_table.topmost(mount_table.parse(table), os.fsdecode(folder))
    assert found is not None and (found.type, found.source) == ("tmpfs", "odd one")
