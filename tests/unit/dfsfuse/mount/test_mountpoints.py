"""Which folders may be mountpoints, and what the kernel's table shows."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from dfsfuse.mount import mountpoints
from dfsfuse.mount.errors import MountpointError
from dfsfuse.mount.mount_table import Mount


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


def test_only_autofs_mounts_in_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """systemd's x-systemd.automount and autofs's direct maps put a file system of their own at the mountpoint."""
    place = Mount(36, 29, "0:44", str(tmp_path), "autofs", "systemd-1", automounter=os.getpgrp())
    monkeypatch.setattr(mountpoints, "mounted_at", lambda _: place)
    mountpoints.check(tmp_path)
    place = replace(place, automounter=1)
    with pytest.raises(MountpointError, match=r"systemd-1 \(autofs\) mounts here on demand"):
        mountpoints.check(tmp_path)


def test_paths_are_absolute_and_links_are_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "real" / "mnt").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "short").symlink_to(tmp_path / "real" / "mnt")
    monkeypatch.chdir(tmp_path)
    wanted = tmp_path.resolve() / "real" / "mnt"
    for path in ("link/mnt", "./link/../real/mnt", "short", "real/mnt/"):
        assert mountpoints.absolute(Path(path)) == wanted
    assert mountpoints.absolute(Path("/")) == Path("/")


def test_a_path_in_a_folder_that_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(MountpointError, match="the working folder that this is relative to has been removed"):
        mountpoints.absolute(Path("mnt"))
    assert mountpoints.absolute(tmp_path) == tmp_path.resolve()


def test_a_folder_is_not_stale(tmp_path: Path) -> None:
    assert not mountpoints.is_stale(tmp_path)
    assert not mountpoints.is_stale(tmp_path / "nowhere")
