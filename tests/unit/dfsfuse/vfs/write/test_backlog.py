"""What is unsaved, and who is to save it. How writers are slowed down is tested with `BackgroundSaver`."""

from __future__ import annotations

import pytest

from dfsfuse.data.extents import REGION_BYTES
from dfsfuse.vfs.open.open_file import OpenFile
from dfsfuse.vfs.write.backlog import SAVE_AFTER_S, Backlog


@pytest.fixture
def backlog() -> Backlog:
    return Backlog(lambda: 100.0)


def written(backlog: Backlog, ino: int, now_s: float) -> OpenFile:
    file = OpenFile(ino)
    file.write(0, b"data", 0, now_s)
    backlog.written(file)
    return file


def test_a_task_is_submitted_once_until_it_begins_and_never_beside_a_thread(backlog: Backlog) -> None:
    assert backlog.ask([7])
    assert not backlog.ask([8])
    backlog.task_begun()
    assert backlog.ask([9])
    backlog.task_begun()
    backlog.thread.is_started = True
    assert not backlog.ask([7])
    assert backlog.due(0.0, 9) == ([7, 8, 9], None)


def test_what_is_saved_in_part_is_due_by_the_age_of_what_is_left(backlog: Backlog) -> None:
    file = written(backlog, 7, 10.0)
    file.write(REGION_BYTES, b"young", 0, 10.5)
    file.seal_all(10.2)
    file.sealed.clear()
    backlog.saved(file, is_done=True)
    assert backlog.due(10.0 + SAVE_AFTER_S, 9) == ([], 10.5)
    assert backlog.due(10.5 + SAVE_AFTER_S, 9) == ([7], 10.5)


def test_what_concerns_one_file_does_not_delay_the_others(backlog: Backlog) -> None:
    written(backlog, 7, 10.0)
    written(backlog, 8, 10.0)
    assert not backlog.tried([], [7], 20.0, is_general=False)
    assert backlog.due(20.0, 9)[0] == [8]
    assert backlog.tried([], [8], 20.0, is_general=True)
    assert backlog.is_failing
    assert backlog.due(20.5, 9)[0] == []
    backlog.retry([8])
    assert not backlog.is_failing
    assert backlog.due(20.5, 9)[0] == [8]
