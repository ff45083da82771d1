"""`dfc heal --watch` keeps running, heals whatever loses a copy, and ends at a signal."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from support.memory_dfc import Dfc
from support.stored_dfc import StoredAccess

from dfsfuse.cli.dfc import watching
from dfsfuse.errors import AuthenticationError, UnavailableError
from dfsfuse.upkeep.heal.background import HealingTurn

LARGE = bytes(range(256)) * 3000


class Script(threading.Event):
    """Instead of waiting, run what happens meanwhile; after the last step the signal comes."""

    def __init__(self, *steps: Callable[[], object]) -> None:
        super().__init__()
        self._steps = list(steps)

    def wait(self, timeout: float | None = None) -> bool:
        if timeout and timeout >= watching.STEP_S and not self.is_set():
            if self._steps:
                self._steps.pop(0)()
            else:
                self.set()
        return self.is_set()


@pytest.fixture
def access(dfc: Dfc) -> StoredAccess:
    dfc.access = access = StoredAccess()
    dfc.ok("put", "-", "large", stdin=LARGE)
    return access


def test_it_heals_what_is_missing_at_first_and_what_is_missing_later(dfc: Dfc, access: StoredAccess) -> None:
    whole = {id: dict(server.stored) for id, server in access.grid.servers.items()}
    healed = []

    def note() -> None:
        healed.append({id: dict(server.stored) for id, server in access.grid.servers.items()} == whole)

    def wipe() -> None:
        access.down(3)
        access.grid[3].forget()

    access.grid[2].forget()
    pause = [lambda: None] * 40
    access.connect()
    stop = Script(note, wipe, note, lambda: access.up(3), *pause, note)
    watching.heal_until_stopped(access, stop, mb_s=1000.0, settle_s=0.0)
    assert healed == [True, False, True]
    access.close()


def test_it_survives_that_all_servers_go(dfc: Dfc, access: StoredAccess) -> None:
    access.connect()
    stop = Script(lambda: access.down(1, 2, 3, 4), lambda: None, lambda: access.up(1, 2, 3, 4), lambda: None)
    watching.heal_until_stopped(access, stop, mb_s=1000.0)
    assert stop.is_set()
    access.close()


@pytest.fixture
def after_a_step(monkeypatch: pytest.MonkeyPatch) -> Callable[[signal.Signals], None]:
    """Send this process a signal after a step of healing; by then its handler is set, however slow the rest is."""

    def send(number: signal.Signals) -> None:
        original = HealingTurn.step

        def step(self: HealingTurn) -> None:
            original(self)
            os.kill(os.getpid(), number)

        monkeypatch.setattr(HealingTurn, "step", step)

    return send


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_with_exit_status_0_and_the_handlers_are_as_before(
    dfc: Dfc, access: StoredAccess, after_a_step: Callable[[signal.Signals], None], number: signal.Signals
) -> None:
    handled = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(each) for each in handled]
    after_a_step(number)
    outcome = dfc("heal", "--watch")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.startswith("Watching: missing copies are recreated.")
    assert outcome.out.endswith("Ended.\n")
    assert "health: All servers answer: reading and writing work, and any one server may fail." in outcome.out
    assert [signal.getsignal(each) for each in handled] == before


def test_servers_that_are_away_are_waited_for_and_said_once(
    dfc: Dfc,
    access: StoredAccess,
    after_a_step: Callable[[signal.Signals], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(watching, "RETRY_S", 0.001)
    answers = [UnavailableError("no server answers")] * 3

    def connect(self: StoredAccess) -> StoredAccess:
        if answers:
            raise answers.pop()
        return StoredAccess.connect(self)

    monkeypatch.setattr(access, "connect", connect.__get__(access))
    after_a_step(signal.SIGTERM)
    outcome = dfc("heal", "--watch")
    assert outcome.code == 0
    assert outcome.out.count("Waiting for the servers: no server answers") == 1
    assert access.refreshed == 3  # the config may name new addresses by now
    assert "Watching" in outcome.out


def test_a_signal_ends_the_wait_for_servers_at_the_beginning(
    dfc: Dfc, access: StoredAccess, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = iter([UnavailableError("no server answers"), AssertionError("it asked again")])

    def connect() -> StoredAccess:
        os.kill(os.getpid(), signal.SIGTERM)
        raise next(tries)

    monkeypatch.setattr(access, "connect", connect)
    outcome = dfc("heal", "--watch")
    assert (outcome.code, outcome.out) == (0, "Waiting for the servers: no server answers\nEnded.\n")


def test_a_hangup_makes_it_read_its_config_again_as_a_mount_does(
    dfc: Dfc, access: StoredAccess, monkeypatch: pytest.MonkeyPatch
) -> None:
    signals = [signal.SIGHUP, signal.SIGTERM]

    def step(_self: HealingTurn) -> None:
        if len(access.watch.done) == 3 - len(signals):
            os.kill(os.getpid(), signals.pop(0))

    monkeypatch.setattr(HealingTurn, "step", step)
    monkeypatch.setattr(watching, "STEP_S", 0.001)
    assert dfc("heal", "--watch").code == 0
    assert access.watch.done == ["start", "SIGHUP", "close"]


def test_a_refusal_ends_it_at_once(dfc: Dfc, access: StoredAccess, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> StoredAccess:
        raise AuthenticationError("refused")

    monkeypatch.setattr(access, "connect", refuse)
    assert dfc("heal", "--watch").code == AuthenticationError.exit_code


@pytest.mark.parametrize(
    "arguments",
    [
        ("--watch", "/folder"),
        ("--watch", "--json"),
        ("--mb-s", "3"),
        *(("--watch", "--mb-s", number) for number in ("0", "-1", "nan", "inf", "1e999")),
    ],
)
def test_what_does_not_go_together(dfc: Dfc, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    outcome = dfc("heal", *arguments)
    assert outcome.code == 2
    assert outcome.err.count("\n") == 1


def test_a_signal_in_the_middle_of_healing_ends_it_too(dfc: Dfc, access: StoredAccess) -> None:
    class AtOnce(threading.Event):
        """The signal comes while the first survey checks whether to stop."""

        def wait(self, timeout: float | None = None) -> bool:
            self.set()
            return True

    access.grid[2].forget()
    access.connect()
    watching.heal_until_stopped(access, AtOnce(), mb_s=1000.0)
    assert access.grid[2].stored == {}
    access.close()
