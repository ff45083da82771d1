"""The kernel binding under the real kernel: mounting, unmounting, and file systems that are killed or frozen."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from support.mounts import eventually, is_mounted, within
from support.served_memory_fs import DEADLINE_S, ENVIRONMENT, PROGRAM, Served, served

from dfsfuse.fusekernel import mounting

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

NOBODY = 65534


@pytest.fixture
def fs(tmp_path: Path) -> Iterator[Served]:
    with served(tmp_path / "mount") as file_system:
        yield file_system


def test_unmounting_what_is_in_use(fs: Served) -> None:
    with (fs.path / "f").open("w+b", buffering=0) as file:
        with pytest.raises(mounting.MountError, match=r"(?i)busy"):
            mounting.unmount(fs.path)
        mounting.unmount(fs.path, lazy=True)
        assert not is_mounted(fs.path)
        file.write(b"goes on")
        assert os.pread(file.fileno(), 100, 0) == b"goes on"
    fs.ended()


def test_unmounting(fs: Served) -> None:
    (fs.path / "f").touch()
    mounting.unmount(fs.path)
    fs.ended()
    with pytest.raises(mounting.MountError):
        mounting.unmount(fs.path)


def test_a_killed_file_system(fs: Served) -> None:
    descriptor = os.open(fs.path / "f", os.O_RDWR | os.O_CREAT)
    try:
        fs.process.kill()
        fs.process.wait(DEADLINE_S)
        for call in (lambda: os.write(descriptor, b"x"), fs.path.stat):
            with pytest.raises(OSError, match=r"not connected|abort"):
                within(DEADLINE_S, "an answer", call)
    finally:
        with suppress(OSError):  # close() reports the same, and closes
            os.close(descriptor)


def test_a_frozen_file_system_releases_killed_programs(fs: Served) -> None:
    os.kill(fs.process.pid, signal.SIGSTOP)
    try:
        with subprocess.Popen(["stat", str(fs.path / "f")]) as process:
            process.kill()
            process.wait(DEADLINE_S)
    finally:
        os.kill(fs.process.pid, signal.SIGCONT)
    (fs.path / "f").write_bytes(b"awake again")


def test_a_user_mounts_with_the_helper() -> None:
    """As another user if the tests run as root, and otherwise as the tests' user. If only root may use /dev/fuse, the
    helper says so."""
    user = NOBODY if os.geteuid() == 0 else os.geteuid()
    with ExitStack() as opened:
        folder = Path(subprocess.check_output(["mktemp", "-d", "/tmp/fusekernel.XXXXXX"], text=True).strip())
        opened.callback(shutil.rmtree, folder)
        folder.chmod(0o755)
        mountpoint = folder / "mount"
        mountpoint.mkdir()
        os.chown(mountpoint, user, user)
        if mounting.DEVICE.stat().st_mode & 0o006 != 0o006:
            words = within(DEADLINE_S, "a refusal", lambda: refusal(mountpoint, user))
            assert "MountError" in words
            assert "/dev/fuse: Permission denied" in words
            return
        fs = opened.enter_context(served(mountpoint, f"uid={user}"))
        mount = next(line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(fs.path) in line)
        assert " fuse.memoryfs memory " in mount
        assert {"nosuid", "nodev"} <= set(mount.split()[5].split(","))
        script = 'echo hello > "$0/f" && cat "$0/f" && fusermount3 -u "$0"'
        done = subprocess.run(
            ["sh", "-c", script, str(fs.path)],
            user=user,
            group=user,
            capture_output=True,
            timeout=DEADLINE_S,
            check=True,
        )
        assert done.stdout == b"hello\n"
        fs.ended()


def refusal(mountpoint: Path, user: int) -> str:
    command = [sys.executable, str(PROGRAM), str(mountpoint), f"uid={user}"]
    return subprocess.run(command, env=ENVIRONMENT, cwd="/", capture_output=True, text=True, check=False).stderr


def test_the_helper_unmounts_for_a_killed_process(tmp_path: Path) -> None:
    with served(tmp_path / "mount", "auto_unmount") as fs:
        (fs.path / "f").write_bytes(b"x")
        fs.process.kill()
        fs.process.wait(DEADLINE_S)
        eventually(lambda: not is_mounted(fs.path), "unmounted by the helper")


@pytest.mark.parametrize("auto_unmount", [False, True])
def test_what_cannot_be_mounted(tmp_path: Path, auto_unmount: bool) -> None:
    options = mounting.MountOptions(auto_unmount=auto_unmount)
    with pytest.raises(mounting.MountError, match="missing"):
        mounting.mount(tmp_path / "missing", options)
    with pytest.raises(mounting.MountError, match="no such mount flag: turbo"):
        mounting.mount(tmp_path, mounting.MountOptions(flags=frozenset({"turbo"})))
