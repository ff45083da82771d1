"""The log's promises, in virtual time: see `scenario`. A failing seed is replayed by `make sim SEED=n`."""

from __future__ import annotations

import os
from collections import Counter

import pytest

from dfs_server.protocol.messages import Position
from dfsfuse.log import reading as log_reading
from dfsfuse.log.proposer import NoQuorum, Pending
from dfsfuse.log.survey import InDoubt, Newest, Survey

from . import variants
from .mount import Parts
from .scenario import run
from .world import SimulationError

SEEDS = int(os.environ.get("DFS_SEEDS", "500"))
PARTS = 5
WAITS_S = 0.6
"""Two turns of each of three mounts, including hand-overs; less than the lease of a mount that does not release it."""
TWO_MOUNTS = {"clients": 0, "mounts": 2, "operations": 40, "faults": False}
MOUNTS_UNDER_FAULTS = {"clients": 0, "mounts": 3, "operations": 12}
THREE_MOUNTS = {"clients": 0, "mounts": 3, "operations": 12, "faults": False}


@pytest.mark.parametrize("part", range(PARTS))
def test_linearizable_and_nothing_lost_under_faults(part: int) -> None:
    outcomes: Counter[str] = Counter()
    faults: Counter[str] = Counter()
    for seed in range(part * SEEDS // PARTS, (part + 1) * SEEDS // PARTS):
        try:
            report = run(seed)
        except SimulationError as error:
            raise SimulationError(f"seed {seed}: {error}") from error
        outcomes.update(op.outcome for op in report.history.operations)
        outcomes.update("by two" for op in report.history.operations if op.told_by_two and op.outcome == "ok")
        outcomes.update("leased" for op in report.history.operations if op.answered and op.outcome == "ok")
        faults.update(report.faults)
    least = SEEDS // PARTS
    assert outcomes["ok"] > least * 10, "the clients got too little done for the runs to show anything"
    assert outcomes["by two"] > least // 50, "too little was read without a quorum for the runs to show anything"
    assert outcomes["leased"] > least * 2, "too little was answered under the lease for the runs to show anything"
    assert sum(faults.values()) > least, "there were too few faults for the runs to show anything"
    assert len(faults) == 8, f"some kind of fault never happened: {faults}"


def test_without_faults_no_answer_is_late_or_lost() -> None:
    for seed in range(30):
        report = run(seed, faults=False, calm=True)
        assert {op.outcome for op in report.history.operations} <= {"ok", "maybe"}, seed


@pytest.mark.parametrize("mounts", [2, 3])
def test_of_mounts_that_write_without_pause_none_waits_long(mounts: int) -> None:
    for seed in range(10):
        run(seed, clients=0, mounts=mounts, operations=40, faults=False, calm=True, waits_s=WAITS_S)


def _caught(first: int = 0, **broken: object) -> str:
    """Return the first error found. The first few seeds from `first` on are known to show it; the rest are for when the
    code has changed."""
    for seed in range(first, first + 400):
        try:
            run(seed, **broken)  # type: ignore[arg-type]
        except SimulationError as error:
            return str(error)
    return ""


def test_a_quorum_of_two_is_caught() -> None:
    assert _caught(first=1, quorum=2)


def test_a_promise_that_is_not_durable_is_caught() -> None:
    assert _caught(first=42, broken=frozenset({"promises"}))


@pytest.mark.parametrize(
    ("what", "first"),
    [
        ("votes", 4),  # an accepted batch is not made durable
        ("lease", 0),  # others get promises while a writer has the lease
    ],
)
def test_what_is_left_out_is_caught(what: str, first: int) -> None:
    assert _caught(first, broken=frozenset({what}))


def test_a_recall_that_is_left_out_is_caught() -> None:
    """Reads that must see what was answered do not ask for a recall."""
    broken = frozenset({"recall"})
    assert "linearizable" in _caught(first=12, clients=0, mounts=3, operations=12, faults=False, broken=broken)


@pytest.mark.parametrize(
    ("parts", "first", "how", "found"),
    [
        (Parts(lease=variants.AnswersTooLong), 33, MOUNTS_UNDER_FAULTS, "under a lease that has ended"),
        (Parts(lease=variants.AnswersOn), 9, TWO_MOUNTS, "though its turn is spent"),
        (Parts(lease=variants.NeverEndsItsTurn), 0, TWO_MOUNTS, "though its turn is spent"),
        (Parts(committer=variants.LetsGoFirst), 239, THREE_MOUNTS, "not linearizable"),
        (Parts(journal=variants.DoesNotCompare), 18, {}, "was claimed with success 2 times"),
        (Parts(journal=variants.ShowsWhatServersHave), 2, {}, "not linearizable"),
        (Parts(cache=variants.TakesOldAnswers), 4, {}, "not linearizable"),
        (Parts(journal=variants.LosesInSilence), 13, {}, "is told that all is durable, although something was lost"),
        (Parts(journal=variants.TellsAgain), 18, {}, "is told of a loss that is not a new one"),
    ],
)
def test_a_mount_that_breaks_a_promise_of_the_lease_is_caught(
    parts: Parts, first: int, how: dict[str, object], found: str
) -> None:
    assert found in _caught(first, parts=parts, **how)


class SilenceIsAbsence(Survey):
    """Takes a batch that fewer than three of the answering servers have for one that was not chosen."""

    def verdict(self) -> Pending | Newest | InDoubt | NoQuorum:
        found = super().verdict()
        if isinstance(found, InDoubt) and all(isinstance(reply, Position) for reply in self.positions.values()):
            return Newest(self.best(), self.appliers())
        return found


def test_a_minority_that_is_silent_is_not_absence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_reading, "Survey", SilenceIsAbsence)
    assert _caught(first=296, clients=5, mounts=0, operations=10)


class OneIsEnough(Survey):
    """Trusts a single server about the end of the log."""

    def witnesses(self) -> frozenset[int]:
        return super().witnesses() or (frozenset(self.positions) if len(self.positions) == 1 else frozenset())


def test_one_server_does_not_show_the_newest_state(monkeypatch: pytest.MonkeyPatch) -> None:
    """It shows when the network splits for so long that a client with one server stops waiting for the others."""
    monkeypatch.setattr(log_reading, "Survey", OneIsEnough)
    assert "a read missed" in _caught(first=43, clients=5, mounts=0, operations=10, rests_s=3.0)


def test_same_seed_same_run() -> None:
    first, second = run(7), run(7)
    assert first.history == second.history
    assert first.delivered == second.delivered
