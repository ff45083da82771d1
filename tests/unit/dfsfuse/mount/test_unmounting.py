"""The messages when something cannot be unmounted. tests/integration/test_mount.py uses real mounts."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dfsfuse.mount import children, mountpoints, running, unmounting
from dfsfuse.mount.errors import MountpointError, MountTimeoutError
from dfsfuse.mount.mount_table import Mount


def test_nothing_is_mounted(tmp_path: Path) -> None:
    with pytest.raises(MountpointError, match="nothing is mounted here"):
        unmounting.unmount(tmp_path)


def test_what_others_mounted_is_left_alone() -> None:
    with pytest.raises(MountpointError, match="not dfsfuse"):
        unmounting.unmount(Path("/proc"))


def test_a_process_that_is_still_writing_is_waited_for_until_the_deadline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "folders", lambda owner=None: [tmp_path])
    mountpoint = tmp_path.resolve() / "mnt"
    with running.announced(mountpoint, tmp_path), pytest.raises(MountTimeoutError, match=f"process {os.getpid()}"):
        unmounting.unmount(mountpoint, flush_timeout_s=0.0)


@pytest.fixture
def mounted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A mount in the kernel's table, until it is detached. Its process is announced in `tmp_path`."""
    mountpoint = tmp_path.resolve() / "mnt"
    table = [Mount(41, 29, "0:45", str(mountpoint), "fuse.dfs", "alice@10.0.0.1", os.geteuid())]
    monkeypatch.setattr(running, "folders", lambda owner=None: [tmp_path])
    monkeypatch.setattr(mountpoints, "mounted_at", lambda _: next(iter(table), None))

    def run(command: list[str], timeout_s: float) -> tuple[int, str]:
        table.clear()
        return 0, ""

    monkeypatch.setattr(children, "run", run)
    return mountpoint


def test_unmounting_waits_for_the_process_after_the_mount_has_gone(mounted: Path, tmp_path: Path) -> None:
    with running.announced(mounted, tmp_path), pytest.raises(MountTimeoutError, match=f"process {os.getpid()}"):
        unmounting.unmount(mounted, flush_timeout_s=0.0)
    assert mountpoints.mounted_at(mounted) is None


def test_a_lazy_unmount_does_not_wait(mounted: Path, tmp_path: Path) -> None:
    with running.announced(mounted, tmp_path):
        assert "until they close" in unmounting.unmount(mounted, lazy=True, flush_timeout_s=0.0)
    assert mountpoints.mounted_at(mounted) is None


def test_where_autofs_mounts_on_demand_our_mount_may_be_gone_and_its_process_still_saving(
    mounted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Mount(36, 29, "0:44", str(mounted), "autofs", "systemd-1", automounter=1)
    monkeypatch.setattr(mountpoints, "mounted_at", lambda _: place)
    with running.announced(mounted, tmp_path), pytest.raises(MountTimeoutError, match=f"process {os.getpid()}"):
        unmounting.unmount(mounted, flush_timeout_s=0.0)
    with pytest.raises(MountpointError, match="nothing is mounted here"):
        unmounting.unmount(mounted)


def test_umount_does_not_run_its_helper_which_comes_here(monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[list[str]] = []

    def run(command: list[str], timeout_s: float) -> tuple[int, str]:
        commands.append(command)
        return 0, ""

    monkeypatch.setattr(children, "run", run)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    unmounting.detach(Path("/mnt/dfs"), force=True)
    assert [command[1:] for command in commands] == [["-i", "-f", "--", "/mnt/dfs"]]


def test_a_folder_is_no_stale_mount(tmp_path: Path) -> None:
    assert not unmounting.remove_stale(tmp_path)


@pytest.mark.parametrize(
    ("complaint", "is_in_use"),
    [
        ("umount: /mnt/busybox: target is busy.", True),
        ("fusermount3: failed to unmount /mnt/busybox: Device or resource busy", True),
        ("umount: /mnt/busybox: must be superuser to unmount.", False),
        ("fusermount3: entry for /mnt/busybox not found in /etc/mtab", False),
    ],
)
def test_what_umount_says_is_told_from_the_mountpoints_name(complaint: str, is_in_use: bool) -> None:
    assert unmounting._tells_of_use(complaint, Path("/mnt/busybox")) is is_in_use
    odd = Path("/mnt/a\nresource busy  b")
    assert unmounting._tells_of_use(complaint.replace("/mnt/busybox", "/mnt/a resource busy b"), odd) is is_in_use
