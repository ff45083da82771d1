"""Where one may mount, and what the kernel's table says."""

from __future__ import annotations

from pathlib import Path

import pytest

from dfsfuse.mount import mountpoints
from dfsfuse.mount.errors import MountpointError
from dfsfuse.mount.mountpoints import Mount

OURS = "41 29 0:45 / /home/a\\040b/dfs rw,nosuid shared:1 - fuse.dfs dfsfuse rw,user_id=0"
PLAIN = "29 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw"


def table(tmp_path: Path, *lines: str) -> Path:
    file = tmp_path / "mountinfo"
    file.write_text("".join(line + "\n" for line in lines))
    return file


def test_a_line_of_the_table() -> None:
    assert mountpoints.parse_line(OURS) == Mount("0:45", "/home/a b/dfs", "fuse.dfs", "dfsfuse")
    assert mountpoints.parse_line(PLAIN) == Mount("8:1", "/", "ext4", "/dev/sda1")


def test_many_optional_fields_and_odd_characters() -> None:
    line = "41 29 0:45 / /a\\134\\012- rw shared:1 master:2 - fuse.dfs a\\011b rw"
    assert mountpoints.parse_line(line) == Mount("0:45", "/a\\\n-", "fuse.dfs", "a\tb")


def test_the_topmost_mount_counts(tmp_path: Path) -> None:
    lower = "40 29 0:44 / /mnt rw - tmpfs tmpfs rw"
    upper = "41 40 0:45 / /mnt rw - fuse.dfs dfsfuse rw"
    found = mountpoints.mounted_at(Path("/mnt"), table(tmp_path, PLAIN, lower, upper))
    assert found is not None
    assert found.is_ours
    assert mountpoints.mounted_at(Path("/mnt/below"), table(tmp_path, PLAIN, lower, upper)) is None


def test_an_empty_folder_of_ones_own_will_do(tmp_path: Path) -> None:
    mountpoints.check(tmp_path)


def test_what_will_not_do(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    for path, expected in [
        (tmp_path / "nowhere", "no such folder"),
        (file, "not a folder"),
        (tmp_path, "not empty"),
        (Path("/proc"), "already mounted"),
    ]:
        with pytest.raises(MountpointError, match=expected) as caught:
            mountpoints.check(path)
        assert str(path) in str(caught.value)


def test_nonempty_may_be_allowed(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    mountpoints.check(tmp_path, allow_nonempty=True)


def test_paths_are_absolute_and_links_are_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "real" / "mnt").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "short").symlink_to(tmp_path / "real" / "mnt")
    monkeypatch.chdir(tmp_path)
    wanted = tmp_path.resolve() / "real" / "mnt"
    for path in ("link/mnt", "./link/../real/mnt", "short", "real/mnt/"):
        assert mountpoints.absolute(Path(path)) == wanted
    assert mountpoints.absolute(Path("/")) == Path("/")


def test_a_folder_is_not_stale(tmp_path: Path) -> None:
    assert not mountpoints.is_stale(tmp_path)
    assert not mountpoints.is_stale(tmp_path / "nowhere")
