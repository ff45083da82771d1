"""`mount -t fuse.dfs` and /etc/fstab with the real mount(8), which runs the helpers of `make install-mount-helper`.

Everything happens in a separate mount namespace (`support.private_mounts`).
"""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from support.mounts import Grid
from support.private_mounts import INSTALL, run_privately

pytestmark = pytest.mark.integration


def test_mount_and_umount(grid: Grid, tmp_path: Path) -> None:
    config = shlex.quote(str(grid.client_config))
    script = f"""
    mount -t fuse.dfs -o noatime,binding=kernel {config} mnt
    grep " $PWD/mnt fuse.dfs " /proc/self/mounts
    echo kept > mnt/file
    umount mnt
    test ! -e mnt/file
    mount -t dfs {config} mnt
    cat mnt/file
    "$PROJECT/.venv/bin/mount.dfs" {config} mnt || echo "code $?"
    umount mnt
    mount -t fuse.dfs -o remount,ro {config} mnt || echo "code $?"
    test -e "$MAN/man8/dfs-server.8" -a -e "$MAN/man1/dfc.1"
    make -s -C "$PROJECT" uninstall-mount-helper
    ls /sbin/mount.dfs /sbin/mount.fuse.dfs /sbin/umount.dfs /sbin/umount.fuse.dfs "$MAN"/man*/* || echo gone
    """
    done = run_privately(tmp_path, INSTALL + script)
    assert done.returncode == 0, done.stdout
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"{grid.client_config} {tmp_path}/mnt fuse.dfs rw,nosuid,nodev,noatime")
    assert lines[1] == "kept"
    assert "mnt: dfsfuse is already mounted here" in lines[2]
    assert lines[3] == "code 32"
    assert "-o remount: options cannot be changed" in lines[4]
    assert lines[5] == "code 1"
    assert lines[-1] == "gone"


def test_umount_returns_when_all_is_on_the_servers(grid: Grid, tmp_path: Path) -> None:
    """Also when a user calls it, with closed files that are not saved yet; with -l it does not wait."""
    config = shlex.quote(str(grid.client_config))
    script = rf"""
    is_done() {{ tail -n 1 state/dfsfuse/mount-mnt-*.log | grep -q " done$"; }}
    mount -t fuse.dfs -o durability=fsync {config} mnt
    for number in $(seq 200); do echo "$number" > "mnt/file $number"; done
    umount mnt
    is_done && echo "all is saved"
    mount -t fuse.dfs {config} mnt
    cat mnt/file\ 200
    exec 9< mnt/file\ 200
    umount -v mnt || echo "code $?"
    umount -l mnt
    is_done || echo "a program has it still"
    exec 9<&-
    """
    done = run_privately(tmp_path, INSTALL + script)
    assert done.returncode == 0, done.stdout
    lines = done.stdout.splitlines()
    assert lines[:2] == ["all is saved", "200"]
    assert lines[2].startswith("umount.dfs: ") and "mnt: in use by bash (" in lines[2]
    assert lines[3:] == ["code 32", "a program has it still"]


def test_a_line_of_fstab_is_mounted_once(grid: Grid, tmp_path: Path) -> None:
    line = f"{grid.client_config} {tmp_path}/mnt fuse.dfs defaults,nofail,_netdev,users,relatime,comment=x,x-ours 0 0\n"
    (tmp_path / "fstab").write_text(line)
    script = """
    mount -T fstab "$PWD/mnt"
    mount -T fstab -a
    grep -c " $PWD/mnt fuse.dfs .*nosuid,nodev,noexec" /proc/self/mounts
    echo kept > mnt/by-fstab
    umount mnt
    """
    done = run_privately(tmp_path, INSTALL + script)
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stdout


def test_what_goes_wrong_is_said_with_the_codes_of_mount(grid: Grid, tmp_path: Path) -> None:
    script = f"""
    mount -t fuse.dfs missing.yaml mnt || echo "code $?"
    mount -t fuse.dfs -o durabilty=fsync {shlex.quote(str(grid.client_config))} mnt || echo "code $?"
    mount -s -f -t fuse.dfs -o durabilty=fsync {shlex.quote(str(grid.client_config))} mnt && echo checked
    mount -t fuse.dfs {shlex.quote(str(grid.client_config))} "$PWD/sbin" || echo "code $?"
    grep -c " $PWD/[a-z]* fuse.dfs " /proc/self/mounts || true
    """
    done = run_privately(tmp_path, INSTALL + script)
    lines = done.stdout.splitlines()
    assert "missing.yaml" in lines[0]
    assert "durabilty" in lines[2]
    assert (lines[1], lines[3], lines[4]) == ("code 1", "code 1", "checked"), done.stdout
    assert "sbin: " in lines[-3]
    assert lines[-2:] == ["code 32", "0"], done.stdout
