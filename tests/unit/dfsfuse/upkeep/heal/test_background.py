"""When a mount heals and what it reports, step by step, with four servers in memory."""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator

import pytest
from support.grid import Fault
from support.stored_files import StoredFiles

from dfs_server.protocol.messages import DropPieces, GetPosition, HavePieces, PutPiece, PutPieces
from dfsfuse.data.placement import ring
from dfsfuse.errors import UnavailableError
from dfsfuse.namespace.records import keys
from dfsfuse.upkeep.heal import state as heal_state
from dfsfuse.upkeep.heal.background import (
    EVERY_S,
    FINDINGS_EVERY_S,
    FIRST_S,
    LOG_WAIT_S,
    RETRY_FIRST_S,
    SETTLE_S,
    BackgroundHealer,
    HealingTurn,
)
from dfsfuse.upkeep.heal.bandwidth import Bucket
from dfsfuse.upkeep.heal.progress import Progress
from dfsfuse.upkeep.heal.report import Report
from dfsfuse.upkeep.heal.state import HealState

LARGE = random.Random(1).randbytes(700_001)
SMALL = random.Random(2).randbytes(9_000)


@pytest.fixture
def files() -> Iterator[StoredFiles]:
    files = StoredFiles()
    for ino in range(2, 10):
        files.write(ino, ino % 4, LARGE[ino:], SMALL[ino:])
    files.grid.forget_requests()
    yield files
    files.close()


class Mount:
    """A mount's healer, with a clock that the test advances."""

    def __init__(self, files: StoredFiles, rate_bytes_s: float | None = None) -> None:
        self.files = files
        self.clock = files.grid.clock
        self.turn = HealingTurn(
            files.cluster,
            files.pages,
            files.store,
            bucket=Bucket(rate_bytes_s),
            wait=self.wait,
            clock=self.clock,
            time_ns=lambda: int(self.clock() * 1e9),
        )

    def wait(self, seconds: float) -> bool:
        self.clock.wait_until(self.clock() + seconds)
        return False

    def after(self, seconds: float) -> None:
        """Let the time pass, and take a step."""
        self.wait(seconds)
        self.turn.step()


def state_in(files: StoredFiles) -> HealState | None:
    return heal_state.decode(files.store.items.get(keys.HEALING))


def looks(files: StoredFiles) -> int:
    return sum(files.grid.asked(HavePieces).values())


def puts(files: StoredFiles) -> int:
    return sum(sum(files.grid.asked(kind).values()) for kind in (PutPiece, PutPieces))


def test_it_looks_a_while_after_the_mount_began_and_then_seldom(files: StoredFiles) -> None:
    mount = Mount(files)
    mount.after(FIRST_S - 1)
    assert looks(files) == 0
    mount.after(1)
    assert looks(files) == 4
    state = state_in(files)
    assert state is not None
    assert (state.phase, state.segments, state.lacking) == ("done", 16, 0)
    mount.after(EVERY_S - 1)
    assert looks(files) == 4
    batches = len(files.store.batches)
    mount.after(2)
    assert looks(files) == 8
    assert puts(files) == 0
    assert len(files.store.batches) == batches + 1  # the last report is hours old


def test_why_it_is_tried_again_is_logged_once(
    files: StoredFiles, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Servers may be away for days, and the log must not fill up."""
    mount = Mount(files)

    def fail(why: str, times: int) -> None:
        def read(*_arguments: object, **_options: object) -> None:
            raise UnavailableError(why)

        with monkeypatch.context() as broken:
            broken.setattr(files.store, "read", read)
            for _ in range(times):
                mount.after(EVERY_S)

    with caplog.at_level(logging.INFO, "dfsfuse.upkeep.heal"):
        fail("no server answers", 3)
        fail("one server answers", 2)
        mount.after(EVERY_S)
        assert looks(files) == 4
        fail("one server answers", 2)
    again = "healing: will be retried later: "
    assert [message for message in caplog.messages if message.startswith(again)] == [
        f"{again}no server answers", f"{again}one server answers", f"{again}one server answers"
    ]  # fmt: skip


def test_a_server_that_comes_back_gets_what_it_missed(files: StoredFiles, caplog: pytest.LogCaptureFixture) -> None:
    mount = Mount(files)
    files.down(2)
    mount.after(1)
    for ino in range(20, 24):
        files.write(ino, ino % 4, LARGE, SMALL)
    files.up(2)
    with caplog.at_level(logging.INFO, "dfsfuse.upkeep"):
        mount.after(1)
        assert looks(files) == 0  # its log is brought up to date first
        mount.after(SETTLE_S)
    files.assert_all_at_home()
    begun, done = (message for message in caplog.messages if message.startswith("healing: "))
    assert begun.startswith("healing: of 24 parts of files 0 lack a copy and 8 are on the wrong servers;")
    assert "8 parts of files moved to the proper servers" in done
    assert done.endswith("0 parts of files lack a copy now")
    state = state_in(files)
    assert state is not None
    assert (state.phase, state.run, state.lacking) == ("done", 1, 0)


def test_one_that_comes_back_empty_is_rebuilt(files: StoredFiles) -> None:
    mount = Mount(files)
    files.down(3)
    files.grid[3].forget()
    files.up(3)
    mount.after(0)
    mount.after(SETTLE_S)
    files.assert_all_at_home()


def test_it_waits_for_the_log_of_a_server_that_is_behind_but_not_for_ever(files: StoredFiles) -> None:
    mount = Mount(files)
    for number, server in files.grid.servers.items():
        server.applied = 3 if number == 3 else 50
    began = files.grid.clock()
    asked = iter(range(1000))

    def catches_up(message: object) -> None:
        if isinstance(message, GetPosition) and next(asked) == 3:
            files.grid[3].applied = 50

    files.grid[3].before_answer = catches_up
    mount.after(FIRST_S)
    assert looks(files) == 4
    assert 2 <= files.grid.clock() - began - FIRST_S < 6
    files.grid[3].applied = 3
    began = files.grid.clock()
    mount.after(EVERY_S)
    assert looks(files) == 8
    assert LOG_WAIT_S <= files.grid.clock() - began - EVERY_S < LOG_WAIT_S + 5


def test_what_readers_find_bad_is_made_anew_at_once_and_once(files: StoredFiles) -> None:
    mount = Mount(files)
    segment = files.region(2, 0).segments[0]
    server = segment.homes[0][0]
    good = files.grid[server].stored.pop((segment.id, 1))
    for _ in range(5):
        mount.turn.found_bad(segment, 1, server)
    mount.after(1)
    assert files.grid[server].stored[segment.id, 1] == good
    assert puts(files) == 1
    mount.turn.found_bad(segment, 1, server)
    mount.after(1)
    assert puts(files) == 1
    mount.wait(100)
    mount.turn.found_bad(segment, 1, server)
    mount.turn.step()
    assert puts(files) == 2


def test_what_a_scrub_puts_in_quarantine_is_a_reason(files: StoredFiles) -> None:
    mount = Mount(files)
    mount.after(FIRST_S)
    segment = files.region(2, 0).segments[0]
    server = ring(2)[0][0]
    del files.grid[server].stored[segment.id, 1]
    files.grid[server].quarantined = 1
    mount.after(FINDINGS_EVERY_S)
    files.assert_all_at_home()
    seen = looks(files)
    mount.after(FINDINGS_EVERY_S + 1)
    assert looks(files) == seen  # still there, but not new


def test_a_new_finding_is_a_reason_though_as_many_old_ones_were_forgotten(files: StoredFiles) -> None:
    mount = Mount(files)
    files.grid[1].findings, files.grid[1].quarantined = ((bytes(16), 2, 1_000), (bytes(16), 1, 900)), 2
    mount.after(FINDINGS_EVERY_S)
    assert not mount.turn.is_wanted
    files.down(3, 4)  # so that healing stays due
    files.grid[1].findings = ((bytes(16), 3, 1_100), (bytes(16), 2, 1_000))
    mount.after(FINDINGS_EVERY_S)
    assert mount.turn.is_wanted
    files.up(3, 4)
    mount.after(0)
    mount.after(SETTLE_S)
    assert not mount.turn.is_wanted
    files.down(3, 4)
    files.grid[1].findings = files.grid[1].findings[1:]  # a finding that was dropped from the list is no reason
    files.grid[1].quarantined = 1
    mount.after(FINDINGS_EVERY_S)
    assert not mount.turn.is_wanted


def test_of_two_mounts_one_heals(files: StoredFiles) -> None:
    one, other = Mount(files), Mount(files)
    files.down(1)
    files.grid[1].forget()
    files.up(1)
    one.after(0)
    other.after(0)
    one.wait(SETTLE_S)
    state = {"stepped": 0}

    def other_steps(message: object) -> None:
        if isinstance(message, PutPiece | PutPieces) and state["stepped"] < 3:
            state["stepped"] += 1
            other.turn.step()

    files.grid[1].before_answer = other_steps
    one.turn.step()
    files.assert_all_at_home()
    made = puts(files)
    assert state["stepped"] == 3
    asked = looks(files)
    other.after(5)  # that run began after the reason arose
    assert not other.turn.is_wanted
    assert (looks(files), puts(files)) == (asked, made)


def test_its_progress_is_in_the_map_while_it_runs(files: StoredFiles) -> None:
    mount = Mount(files, rate_bytes_s=100_000)
    files.grid[1].forget()
    states: list[HealState] = []

    def watch(batch: object) -> None:
        if (state := state_in(files)) is not None:
            states.append(state)

    files.store.before_commit = watch
    mount.after(FIRST_S)
    states.append(state_in(files))  # type: ignore[arg-type]
    assert states[0].phase == "healing"
    assert states[0].bytes_total == states[-1].bytes_done > 0
    assert [state.phase for state in states[:-1]] == ["healing"] * (len(states) - 1)
    assert states[-1].phase == "done"
    told = [state.bytes_done for state in states]
    assert len(set(told)) > 10
    assert all(state.rate_bytes_s > 0 for state in states[2:])
    assert 90_000 < states[-2].rate_bytes_s < 130_000
    assert [state.beat for state in states[:-1]] == list(range(len(states) - 1))


def test_with_too_few_servers_it_waits(files: StoredFiles) -> None:
    mount = Mount(files)
    files.down(1, 2)
    mount.after(FIRST_S)
    assert looks(files) == 0
    assert mount.turn.is_wanted
    files.up(1, 2)
    mount.after(0)
    mount.after(SETTLE_S)
    assert looks(files) == 4


def test_what_fails_is_tried_again_later(files: StoredFiles) -> None:
    mount = Mount(files)
    files.grid[1].forget()
    files.grid[1].fault = Fault.FULL
    mount.after(FIRST_S)
    state = state_in(files)
    assert state is not None
    assert (state.phase, state.lacking) == ("done", 16)
    seen = looks(files)
    mount.after(RETRY_FIRST_S - 1)
    assert looks(files) == seen
    files.grid[1].fault = Fault.NONE
    mount.after(2)
    files.assert_all_at_home()
    state = state_in(files)
    assert state is not None
    assert (state.run, state.lacking) == (2, 0)


def test_a_map_that_cannot_be_written_ends_nothing(files: StoredFiles) -> None:
    mount = Mount(files)
    files.grid[1].forget()
    files.store.is_writable = False
    mount.after(FIRST_S)
    assert puts(files) == 0
    files.store.is_writable = True
    mount.after(RETRY_FIRST_S)
    files.assert_all_at_home()


def test_the_thread_ends_at_once(files: StoredFiles) -> None:
    def make(wait: object) -> HealingTurn:
        return HealingTurn(files.cluster, files.pages, files.store, bucket=Bucket(1), wait=wait)  # type: ignore[arg-type]

    healer = BackgroundHealer(make)
    healer.close()  # never started
    healer = BackgroundHealer(make)
    healer.start()
    healer.found_bad(files.region(2, 0).segments[0], 1, 1)  # this would take days at a byte a second
    healer.close()
    assert not healer._thread.is_alive()
    assert files.grid.asked(DropPieces) == {}


def test_the_log_says_how_it_stands_whenever_that_has_changed(
    files: StoredFiles, caplog: pytest.LogCaptureFixture
) -> None:
    def said() -> list[str]:
        found = [message for message in caplog.messages if message.startswith("health: ")]
        caplog.clear()
        return found

    mount = Mount(files)
    caplog.set_level(logging.INFO, "dfsfuse.upkeep")
    mount.after(FIRST_S)
    well = (
        "health: All servers answer: reading and writing work, and any one server may fail. "
        "All data has its two copies."
    )
    assert said() == [well]
    mount.after(EVERY_S)
    assert said() == []
    files.down(2)
    mount.after(1)
    unknown = "writing works; whether all files can be read is not known."
    assert said() == [f"health: 3 of 4 servers answer: {unknown}"]
    files.grid[2].forget()
    files.up(2)
    mount.after(1)
    assert said() == [f"health: All servers answer: {unknown}"]
    mount.after(SETTLE_S)
    lacking, after = said()
    assert (
        lacking
        == "health: All servers answer: reading and writing work. Of 8 files 8 have fewer than two copies of some data."
    )
    assert after == well


def test_how_it_stands_is_said_also_where_too_few_servers_answer_from_the_beginning(
    files: StoredFiles, caplog: pytest.LogCaptureFixture
) -> None:
    files.down(1, 2)
    mount = Mount(files)
    with caplog.at_level(logging.INFO, "dfsfuse.upkeep"):
        mount.after(FIRST_S)
        mount.after(1)
    (said,) = (message for message in caplog.messages if message.startswith("health: "))
    assert said.startswith("health: 2 of 4 servers answer, and writing needs three: nothing can be written;")


def test_what_is_told_of_a_run_counts_down_from_what_lacked_when_it_began(files: StoredFiles) -> None:
    clock = files.grid.clock
    state = heal_state.beginning(None, Report(segments=100, lacking=90), 0)
    progress = Progress.begun(files.store, None, state, clock, lambda: 0)
    assert progress is not None
    with progress:
        for healed in (20, 40, 60):
            clock.wait_until(clock() + 10)
            progress.told(Report(healed=healed))
            now = state_in(files)
            assert now is not None
            assert now.lacking == 90 - healed


def test_a_server_that_goes_in_the_middle_of_a_long_run_is_told_before_its_end(files: StoredFiles) -> None:
    mount = Mount(files, rate_bytes_s=50_000)  # a few copies at a time
    files.grid[2].forget()
    told: list[tuple[str, int]] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            told.append((record.getMessage(), puts(files)))

    def fails(request: object) -> None:
        if isinstance(request, PutPiece):
            files.down(4)

    files.grid[2].before_answer = fails
    log, listener = logging.getLogger("dfsfuse.upkeep"), Listener()
    level = log.level
    log.addHandler(listener)
    log.setLevel(logging.INFO)
    try:
        mount.after(FIRST_S)
    finally:
        log.removeHandler(listener)
        log.setLevel(level)
    (away,) = [(text, made) for text, made in told if text.startswith("health: 3 of 4 servers answer")]
    (done,) = [(text, made) for text, made in told if text.startswith("healing: done")]
    assert "whether all files can be read is not known" in away[0]  # they were counted when DFS4 answered
    assert 0 < away[1] < done[1]
