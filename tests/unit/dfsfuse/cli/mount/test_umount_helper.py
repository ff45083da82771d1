"""The command line as umount(8) writes it, and its exit codes."""

from __future__ import annotations

from pathlib import Path

import pytest

from dfsfuse.cli.mount import dfsmount, umount_helper
from dfsfuse.mount.errors import MountBusyError, MountedElsewhereError, MountpointError


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Path, bool, bool, bool]]:
    """Records what would be unmounted: mountpoint, lazy, force, quiet."""
    found: list[tuple[Path, bool, bool, bool]] = []

    def end(mountpoint: Path, *, lazy: bool, force: bool = False, is_quiet: bool = False) -> int:
        found.append((mountpoint, lazy, force, is_quiet))
        return 0

    monkeypatch.setattr(dfsmount, "end", end)
    return found


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("/mnt", (Path("/mnt"), False, False, True)),
        ("/mnt -n -l -v", (Path("/mnt"), True, False, False)),
        ("/mnt -f -r -t fuse.dfs", (Path("/mnt"), False, True, True)),
    ],
)
def test_what_umount_passes_on(
    asked: list[tuple[Path, bool, bool, bool]], line: str, expected: tuple[Path, bool, bool, bool]
) -> None:
    assert umount_helper.run(line.split()) == 0
    assert asked == [expected]


def test_another_namespace_is_refused(
    asked: list[tuple[Path, bool, bool, bool]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert umount_helper.run(["/mnt", "-N", "12"]) == 1
    assert asked == []
    assert "umount -i -N" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (MountBusyError("in use"), 32),
        (MountpointError("not mounted"), 32),
        (MountedElsewhereError("elsewhere too"), 0),
        (KeyboardInterrupt(), 8),
    ],
)
def test_the_exit_codes_are_those_of_umount(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: BaseException, code: int
) -> None:
    def fail(mountpoint: Path, **_: bool) -> int:
        raise error

    monkeypatch.setattr(dfsmount, "end", fail)
    assert umount_helper.run(["/mnt"]) == code
    assert (str(error) in capsys.readouterr().err) or code == 8


def test_what_could_not_be_saved_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dfsmount, "end", lambda mountpoint, **_: 6)
    assert umount_helper.run(["/mnt"]) == 32
