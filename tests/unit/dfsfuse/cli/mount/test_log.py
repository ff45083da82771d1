"""A mount's log file: one for each mountpoint, always in the folder that was opened before mounting."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from dfsfuse.cli.mount import log as mount_log
from dfsfuse.cli.mount.log import HeldLog


def test_each_mountpoint_has_a_log_of_its_own() -> None:
    names = {mount_log.file_name(Path(path)) for path in ("/a/data", "/b/data", "/", "/root")}
    assert len(names) == 4
    assert all(name.startswith(("mount-data-", "mount-root-")) for name in names)
    assert mount_log.file_name(Path("/a/data")) == mount_log.file_name(Path("/a/data"))
    assert mount_log.file_name(Path("/a/b\n\x1bc")).startswith("mount-b__c-")


@pytest.mark.parametrize("name", ["x" * 255, "\N{SNOWMAN}" * 85, "\udcff\udcfe"])
def test_any_last_name_has_a_log(tmp_path: Path, name: str) -> None:
    HeldLog(tmp_path / mount_log.file_name(Path("/mnt") / name)).close()
    (made,) = tmp_path.iterdir()
    assert len(f"{made.name}.2".encode()) <= 255


def lines_of(file: Path) -> list[str]:
    return file.read_text().splitlines()


@pytest.fixture
def log() -> logging.Logger:
    return logging.Logger("test")


def test_older_logs_are_kept_and_the_oldest_goes(tmp_path: Path, log: logging.Logger) -> None:
    file = tmp_path / "mount.log"
    handler = HeldLog(file, max_bytes=10, backups=2)
    log.addHandler(handler)
    for number in range(5):
        log.warning("line %d, which fills it", number)
    log.warning("last")
    handler.close()
    assert lines_of(file) == ["last"]
    assert lines_of(tmp_path / "mount.log.1") == ["line 4, which fills it"]
    assert lines_of(tmp_path / "mount.log.2") == ["line 3, which fills it"]
    assert len(list(tmp_path.iterdir())) == 3


def test_it_appends_to_what_is_there(tmp_path: Path, log: logging.Logger) -> None:
    (tmp_path / "mount.log").write_text("before\n")
    handler = HeldLog(tmp_path / "mount.log")
    log.addHandler(handler)
    log.warning("a name that is not UTF-8: %s", "\udcff")
    handler.close()
    assert lines_of(tmp_path / "mount.log") == ["before", "a name that is not UTF-8: \\udcff"]


def test_nothing_is_opened_by_the_path_once_it_is_made(tmp_path: Path, log: logging.Logger) -> None:
    """By then the path may lead into the mount itself."""
    (tmp_path / "state").mkdir()
    handler = HeldLog(tmp_path / "state" / "mount.log", max_bytes=10)
    log.addHandler(handler)
    (tmp_path / "state").rename(tmp_path / "below")
    log.warning("fills the first one")
    log.warning("fills the second one")
    handler.close()
    assert not (tmp_path / "state").exists()
    assert {path.name for path in (tmp_path / "below").iterdir()} == {"mount.log", "mount.log.1", "mount.log.2"}


def test_a_folder_that_is_gone_ends_nothing(tmp_path: Path, log: logging.Logger) -> None:
    folder = tmp_path / "state"
    folder.mkdir()
    handler = HeldLog(folder / "mount.log", max_bytes=10)
    log.addHandler(handler)
    (folder / "mount.log").unlink()
    folder.rmdir()
    log.warning("a line that fills it")
    log.warning("and one more")
    handler.close()


def test_a_log_that_cannot_be_written_is_an_error_at_once(tmp_path: Path) -> None:
    (tmp_path / "mount.log").mkdir()
    with pytest.raises(IsADirectoryError):
        HeldLog(tmp_path / "mount.log")
