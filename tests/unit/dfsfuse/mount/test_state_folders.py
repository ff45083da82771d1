"""Where small files are kept if there is no home, if it is not writable, and if the mount covers it."""

from __future__ import annotations

import os
import pwd
import stat
from pathlib import Path

import pytest

from dfsfuse.mount import running, state_folders
from dfsfuse.mount.errors import MountpointError

ELSEWHERE = Path("/mnt/dfs")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home of a user other than root; this machine's /run and /tmp are left alone."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    (tmp_path / "run").mkdir(mode=0o700)
    return tmp_path.resolve() / "home"


def test_the_state_folder_of_the_home(home: Path) -> None:
    folder = state_folders.usable(ELSEWHERE, "mounts")
    assert folder == home / ".local/state/dfsfuse/mounts"
    assert stat.S_IMODE(folder.stat().st_mode) == stat.S_IMODE(folder.parent.stat().st_mode) == 0o700


def test_another_one_if_the_mount_covers_it(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_folders, "candidates", lambda: iter([home / "state", home.parent / "run"]))
    home.mkdir()
    assert state_folders.usable(home, "mounts") == home.parent / "run/mounts"
    assert not (home / "state").exists()
    with pytest.raises(MountpointError, match=r"would be covered by the mount; .*would be covered"):
        state_folders.usable(home.parent, "mounts")


def test_another_one_if_it_cannot_be_made(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home.write_text("is a file")
    monkeypatch.setattr(state_folders, "candidates", lambda: iter([home / "state", home.parent / "run"]))
    assert state_folders.usable(ELSEWHERE) == home.parent / "run"


@pytest.mark.parametrize("mode", [0o770, 0o702])
def test_never_one_that_others_can_write_to(home: Path, monkeypatch: pytest.MonkeyPatch, mode: int) -> None:
    (home / "state").mkdir(parents=True)
    (home / "state").chmod(mode)
    monkeypatch.setattr(state_folders, "candidates", lambda: iter([home / "state"]))
    with pytest.raises(MountpointError, match="others can write to it"):
        state_folders.usable(ELSEWHERE, "mounts")


def test_never_one_that_others_own(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "theirs").mkdir(parents=True)
    os.chown(home / "theirs", 4321, 4321)
    (home / "link").symlink_to(home)
    os.chown(home / "link", 4321, 4321, follow_symlinks=False)
    monkeypatch.setattr(state_folders, "candidates", lambda: iter([home / "theirs", home / "link"]))
    with pytest.raises(MountpointError, match=r"another user owns it.*another user owns it"):
        state_folders.usable(ELSEWHERE)


def test_without_a_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(_: int) -> pwd.struct_passwd:
        raise KeyError

    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    monkeypatch.setattr(os, "geteuid", lambda: 4321)
    assert list(state_folders.candidates()) == [home.parent / "run/dfsfuse", Path("/tmp/dfsfuse-4321")]
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert next(state_folders.candidates()) == Path("/run/user/4321/dfsfuse")


def test_the_process_over_ones_home_is_found_again_and_the_mount_is_not_touched(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "folders", lambda owner=None: [home / "state/mounts", home.parent / "run/mounts"])
    (home.parent / "run/mounts").mkdir()
    with running.announced(home, home.parent / "run/mounts"):
        serving = running.find(home)
        assert serving is not None and serving.pid == os.getpid()
    assert running.find(home) is None
