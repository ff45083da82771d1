"""The command line as mount(8) writes it, and its exit codes. Integration tests mount for real."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.servers import REPOSITORY

from dfsfuse.cli.mount import dfsmount, mount_helper
from dfsfuse.cli.mount.dfsmount import Request
from dfsfuse.errors import UnavailableError


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> list[Request]:
    """Records what would be mounted."""
    found: list[Request] = []

    def mount(request: Request) -> int:
        found.append(request)
        return 0

    monkeypatch.setattr(dfsmount, "mount", mount)
    return found


def test_what_mount_passes_on(requests: list[Request]) -> None:
    line = "/etc/dfc.yaml /mnt/dfs -s -n -v -o rw,noatime,cache=4M,nofail,_netdev,user -t fuse.dfs"
    assert mount_helper.run(line.split()) == 0
    (request,) = requests
    assert (request.config, request.mountpoint) == (Path("/etc/dfc.yaml"), Path("/mnt/dfs"))
    assert request.verbose and not request.foreground and not request.local
    assert request.options.cache_bytes == 4 << 20
    assert request.options.fuse["noatime"] is True


def test_the_source_in_the_mount_table_is_the_config_unless_it_is_said_otherwise(requests: list[Request]) -> None:
    mount_helper.run(["/etc/dfc.yaml", "/mnt"])
    mount_helper.run(["/etc/dfc.yaml", "/mnt", "-o", "fsname=mine"])
    mount_helper.run(["/etc/a,allow_root", "/mnt"])
    assert [request.options.fuse.get("fsname") for request in requests] == ["/etc/dfc.yaml", "mine", None]
    assert "allow_root" not in requests[2].options.fuse


def test_faking_checks_and_mounts_nothing(requests: list[Request], tmp_path: Path) -> None:
    mountpoint = tmp_path / "mnt"
    mountpoint.mkdir()
    config = str(REPOSITORY / "conf/dfc.yaml")
    assert mount_helper.run([config, str(mountpoint), "-f"]) == 0
    assert mount_helper.run([config, str(mountpoint / "missing"), "-f"]) == 32
    assert mount_helper.run([str(tmp_path / "missing.yaml"), str(mountpoint), "-f"]) == 1
    assert not requests


def test_the_exit_codes_are_those_of_mount(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def codes(error: BaseException) -> int:
        def fail(_request: Request) -> int:
            raise error

        monkeypatch.setattr(dfsmount, "mount", fail)
        return mount_helper.run(["dfc.yaml", "/mnt"])

    assert mount_helper.run(["dfc.yaml"]) == 1
    assert codes(UnavailableError("nobody answers")) == 32
    assert codes(OSError("no")) == 32
    assert codes(KeyboardInterrupt()) == 8
    assert "mount.dfs: nobody answers" in capsys.readouterr().err
