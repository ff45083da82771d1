"""The messages when FUSE is missing."""

from __future__ import annotations

import pwd
from pathlib import Path

import pytest

from dfsfuse.mount import libfuse
from dfsfuse.mount.errors import FuseMissingError


def test_this_machine_has_it() -> None:
    libfuse.require()
    assert "libfuse 2." in libfuse.versions()
    assert "fusepy 3." in libfuse.versions()


def test_no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(libfuse.LIBRARY_VARIABLE, "libfuse-that-is-not-there.so.2")
    with pytest.raises(FuseMissingError, match="apt-get install fuse3 libfuse2"):
        libfuse.require()
    assert "missing" in libfuse.versions()


def test_no_device(tmp_path: Path) -> None:
    with pytest.raises(FuseMissingError, match="modprobe fuse"):
        libfuse.require(tmp_path / "fuse")


def test_a_device_that_this_user_may_not_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = tmp_path / "fuse"
    device.touch(mode=0o600)
    monkeypatch.setattr(libfuse.os, "access", lambda path, _mode: path != device)  # root may open everything
    with pytest.raises(FuseMissingError, match=f"as root: chmod 666 {device}"):
        libfuse.require(device)


def test_a_user_whom_fusermount_would_not_mount_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(_: int) -> pwd.struct_passwd:
        raise KeyError

    monkeypatch.setattr(libfuse.pwd, "getpwuid", nobody)
    libfuse.require()  # root needs no fusermount
    monkeypatch.setattr(libfuse.os, "geteuid", lambda: 4711)
    monkeypatch.setattr(libfuse.os, "getuid", lambda: 4711)
    with pytest.raises(FuseMissingError, match=r"number 4711 is not in it\. Add it as root \(useradd -u 4711 NAME\)"):
        libfuse.require()
