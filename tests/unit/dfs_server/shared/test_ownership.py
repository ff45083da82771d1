"""A config in the working folder is used only if no other user can have written it."""

from __future__ import annotations

import grp
import os
import pwd
from pathlib import Path

import pytest

from dfs_server.shared import ownership

OTHER = 4711  # a user who is not in the passwd database
CONFIG = Path("conf/dfc.yaml")


@pytest.fixture(autouse=True)
def _work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working folder with a config that only this user can write."""
    work = tmp_path / "work"
    work.mkdir(mode=0o755)
    monkeypatch.chdir(work)
    CONFIG.parent.mkdir(mode=0o755)
    CONFIG.touch(mode=0o644)


PLACES = pytest.mark.parametrize("place", [Path(), CONFIG.parent, CONFIG], ids=["working folder", "folder", "file"])


def shown(place: Path) -> str:
    return str(Path.cwd()) if place == Path() else str(place)


def test_what_is_ours_or_roots_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ownership.refusal(CONFIG) is None
    for place in (CONFIG, CONFIG.parent, Path()):
        os.chown(place, 0, 0)
    monkeypatch.setattr(os, "geteuid", lambda: OTHER)
    assert ownership.refusal(CONFIG) is None


@PLACES
def test_what_belongs_to_somebody_else_is_not(place: Path) -> None:
    os.chown(place, OTHER, -1)
    assert ownership.refusal(CONFIG) == (
        f"conf/dfc.yaml is not used, since {shown(place)} belongs to another user (4711): "
        "name it if you trust it (--config conf/dfc.yaml)"
    )


@PLACES
@pytest.mark.parametrize("mode", [0o777, 0o775, 0o757])
def test_nor_what_others_can_write_to(place: Path, mode: int, monkeypatch: pytest.MonkeyPatch) -> None:
    someone = pwd.struct_passwd(("someone", "x", OTHER, 4712, "", "/", ""))
    monkeypatch.setattr(pwd, "getpwall", lambda: [someone])
    os.chown(place, -1, 4712)
    place.chmod(mode)
    assert ownership.refusal(CONFIG) == (
        f"conf/dfc.yaml is not used, since other users can write to {shown(place)} (mode {mode:04o}): "
        f"run `chmod go-w {shown(place)}`, or name it if you trust it (--config conf/dfc.yaml)"
    )


@PLACES
def test_a_users_private_group_may_write(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on systems where each user has a group of the same name, and umask 002."""
    me = pwd.struct_passwd(("me", "x", os.geteuid(), 4712, "", "/", ""))
    monkeypatch.setattr(pwd, "getpwall", lambda: [me])
    monkeypatch.setattr(pwd, "getpwuid", lambda _: me)
    members = ["me"]
    monkeypatch.setattr(grp, "getgrgid", lambda _: grp.struct_group(("me", "x", 4712, members)))
    os.chown(place, -1, 4712)
    place.chmod(0o775)
    assert ownership.refusal(CONFIG) is None
    members.append("another")
    assert ownership.refusal(CONFIG) is not None


def test_an_access_control_list_may_name_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pwd, "getpwall", list)
    CONFIG.chmod(0o664)
    assert ownership.refusal(CONFIG) is None
    monkeypatch.setattr(os, "getxattr", lambda path, name: (path, name))
    assert ownership.refusal(CONFIG) is not None


def test_a_sticky_folder_may_be_open_to_all() -> None:
    """As /tmp is: only we can replace our files in it. A config that another user has put there is still not used."""
    Path().chmod(0o1777)
    assert ownership.refusal(CONFIG) is None
    os.chown(CONFIG.parent, OTHER, -1)
    assert ownership.refusal(CONFIG) is not None
