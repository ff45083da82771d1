"""A thread that waits for a server notices other work once, hands it over, and goes on waiting."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Iterator

import pytest

from dfsfuse.net import meanwhile

DEADLINE_S = 10.0


class Ends:
    """A server, another source of work, and a count of the work handed over. A `Watch`."""

    def __init__(self) -> None:
        self.server, self._server_end = socket.socketpair()
        self.work, self._work_end = socket.socketpair()
        self.is_wanted = True
        self.handed_over = 0
        self.waits = 0
        self.descriptor = self.work.fileno()

    def begin(self) -> bool:
        self.waits += 1
        return self.is_wanted

    def end(self) -> None:
        self.waits -= 1

    def answer(self) -> None:
        self._server_end.send(b"!")

    def bring_work(self) -> None:
        self._work_end.send(b"!")

    def hand_over(self) -> None:
        self.handed_over += 1
        self.answer()  # the server answers only now

    def wait(self, timeout_s: float = DEADLINE_S) -> int:
        return meanwhile.wait(self.server.fileno(), select.POLLIN, timeout_s)

    def wait_for_any(self, timeout_s: float = DEADLINE_S) -> list[tuple[int, int]]:
        poll = select.poll()
        poll.register(self.server, select.POLLIN)
        found = meanwhile.wait_for_any(poll, int(timeout_s * 1000))
        poll.unregister(self.server)
        assert poll.poll(0) == [], "nothing else may be registered with it"
        return found

    def close(self) -> None:
        for end in (self.server, self._server_end, self.work, self._work_end):
            end.close()


@pytest.fixture
def ends() -> Iterator[Ends]:
    ends = Ends()
    meanwhile.watch(ends)
    yield ends
    meanwhile.watch(None)
    assert ends.waits == 0, "every wait that began must have ended"
    ends.close()


def test_an_answer_ends_the_waiting(ends: Ends) -> None:
    ends.answer()
    assert ends.wait() & select.POLLIN
    assert ends.handed_over == 0


def test_the_time_ends_it_too(ends: Ends) -> None:
    assert ends.wait(0.01) == 0
    assert ends.wait(-1.0) == 0


def test_work_that_comes_first_is_handed_over_and_the_answer_is_waited_for(ends: Ends) -> None:
    ends.bring_work()
    assert ends.wait() & select.POLLIN
    assert ends.handed_over == 1


def test_an_answer_that_is_there_comes_before_other_work(ends: Ends) -> None:
    ends.answer()
    ends.bring_work()
    assert ends.wait() & select.POLLIN
    assert ends.handed_over == 0


def test_a_thread_off_duty_does_not_look(ends: Ends) -> None:
    ends.is_wanted = False
    ends.bring_work()
    assert ends.wait(0.01) == 0
    assert ends.handed_over == 0


def test_each_thread_has_a_watch_of_its_own(ends: Ends) -> None:
    ends.bring_work()
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(ends.wait(0.01)))
    thread.start()
    thread.join(DEADLINE_S)
    assert found == [0]
    assert ends.handed_over == 0


def test_work_whose_source_is_gone_is_handed_over(ends: Ends) -> None:
    """The kernel has unmounted; the next thread to read finds out."""
    ends._work_end.close()
    assert ends.wait() & select.POLLIN
    assert ends.handed_over == 1


def test_of_several_servers_those_that_answer_are_told(ends: Ends) -> None:
    ends.answer()
    ends.bring_work()
    assert ends.wait_for_any() == [(ends.server.fileno(), select.POLLIN)]
    assert ends.handed_over == 0


def test_waiting_for_several_checks_the_time_after_handing_over_work(ends: Ends) -> None:
    ends.bring_work()
    assert ends.wait_for_any() == []
    assert ends.handed_over == 1
    ends.is_wanted = False
    assert ends.wait_for_any() == [(ends.server.fileno(), select.POLLIN)]
    assert ends.handed_over == 1


@pytest.mark.parametrize("is_wanted", [True, False])
def test_waiting_for_several_waits_no_longer_than_requested(ends: Ends, *, is_wanted: bool) -> None:
    ends.is_wanted = is_wanted
    assert ends.wait_for_any(0.01) == []
    assert ends.handed_over == 0
