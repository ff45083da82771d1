"""Which thread reads the next request: always the same one while operations are quick, more while operations wait."""

from __future__ import annotations

import itertools
import os
import queue
import threading
import time
from collections.abc import Callable
from types import SimpleNamespace

import pytest
from support.daemons import eventually
from support.fake_kernel import request

from dfsfuse.fusekernel import readers, wire
from dfsfuse.fusekernel.readers import BusyPolling, Readers, ReaderState

DEADLINE_S = 10.0
QUICK, SLOW = wire.FUSE_GETATTR, wire.FUSE_FSYNC


class Requests:
    """A source of requests, and a record of which thread handled which request."""

    def __init__(
        self,
        threads_max: int,
        handle: Callable[[int], None],
        on_start: Callable[[ReaderState], None] = lambda _: None,
        on_end: Callable[[], None] = lambda: None,
    ) -> None:
        self._waiting: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._handle_opcode = handle
        self.handled: queue.SimpleQueue[tuple[int, str]] = queue.SimpleQueue()
        self.readers = Readers(self._read, self._handle, 4096, threads_max, on_end, on_start=on_start)
        self.reading = 0
        self.readers.start()

    def _read(self, buffer: bytearray) -> int | None:
        self.reading += 1
        assert self.reading == 1, "two threads read at once"
        message = self._waiting.get()
        self.reading -= 1
        if message is None:
            self._waiting.put(None)
            return None
        buffer[: len(message)] = message
        return len(message)

    def _handle(self, message: memoryview) -> None:
        opcode = wire.fuse_in_header.unpack_from(message)[1]
        self._handle_opcode(opcode)
        self.handled.put((opcode, threading.current_thread().name))

    def send(self, opcode: int) -> None:
        self._waiting.put(request(opcode, 2))

    def ask(self, opcode: int) -> str:
        self.send(opcode)
        handled, name = self.handled.get(timeout=DEADLINE_S)
        assert handled == opcode
        return name

    def end(self) -> None:
        self._waiting.put(None)
        assert self.readers.ended.wait(DEADLINE_S)
        self.readers.join()


def test_quick_requests_in_a_row_are_handled_by_one_thread() -> None:
    """Except requests during which the machine is busy with something else for a millisecond."""
    requests = Requests(16, lambda opcode: None)
    names = [requests.ask(QUICK) for _ in range(2000)]
    requests.end()
    assert changes(names) < 1000


def test_the_end_is_told_while_a_request_is_still_handled() -> None:
    """Being told ends the request soon, and everything waits for it then."""
    told = threading.Event()
    requests = Requests(16, lambda opcode: _wait(told), on_end=told.set)
    requests.send(SLOW)
    requests.end()
    assert requests.handled.get(timeout=DEADLINE_S)[0] == SLOW


def test_no_request_waits_for_a_slow_one() -> None:
    go_on = threading.Event()
    requests = Requests(16, lambda opcode: None if opcode == QUICK else _wait(go_on))
    for _ in range(3):  # the first time it is not known to be slow
        go_on.clear()
        requests.send(SLOW)
        requests.ask(QUICK)
        go_on.set()
        assert requests.handled.get(timeout=DEADLINE_S)[0] == SLOW
    requests.end()


class Waits:
    """An operation that waits, and meanwhile watches for the next request."""

    def __init__(self) -> None:
        self.mine = threading.local()
        self.go_on = threading.Event()
        self.has_duty: queue.SimpleQueue[bool] = queue.SimpleQueue()

    def start(self, own: ReaderState) -> None:
        self.mine.own = own

    def __call__(self, *, is_handed_over: bool) -> None:
        own: ReaderState = self.mine.own
        has_duty = own.begin()
        self.has_duty.put(has_duty)
        if is_handed_over:
            own.hand_over()
            own.hand_over()  # a second time has no effect
        _wait(self.go_on)
        own.end()


def test_an_operation_that_watches_for_requests_hands_over_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the supervisor, and without counting as slow from then on."""
    monkeypatch.setattr(readers, "PATIENCE_S", 600.0)
    waits = Waits()
    requests = Requests(16, lambda opcode: waits(is_handed_over=True) if opcode == SLOW else None, waits.start)
    for _ in range(3):
        waits.go_on.clear()
        requests.send(SLOW)
        assert waits.has_duty.get(timeout=DEADLINE_S)
        for _ in range(3):
            requests.ask(QUICK)
        waits.go_on.set()
        assert requests.handled.get(timeout=DEADLINE_S)[0] == SLOW
    assert not requests.readers._slow
    requests.end()


def test_an_operation_that_watches_for_requests_keeps_the_baton(monkeypatch: pytest.MonkeyPatch) -> None:
    """So a single program that reads occupies one thread. If it computes for long afterwards, the baton is passed
    on."""
    looks = threading.Semaphore(0)
    times = SimpleNamespace(monotonic=time.monotonic, sleep=lambda _: looks.acquire(timeout=DEADLINE_S))
    monkeypatch.setattr(readers, "time", times)
    computes = threading.Event()
    waits = Waits()

    def handle(opcode: int) -> None:
        if opcode == SLOW:
            waits(is_handed_over=False)
            _wait(computes)

    requests = Requests(16, handle, waits.start)
    requests.send(SLOW)
    assert waits.has_duty.get(timeout=DEADLINE_S)
    requests.send(QUICK)
    for _ in range(20):
        looks.release()
    eventually(lambda: not looks._value)
    assert requests.handled.empty()
    waits.go_on.set()
    eventually(lambda: not requests.readers._watched)
    looks.release(3)
    assert requests.handled.get(timeout=DEADLINE_S)[0] == QUICK
    computes.set()
    assert requests.handled.get(timeout=DEADLINE_S)[0] == SLOW
    looks.release(100)
    requests.end()


class Looks:
    """Controls the supervisor's pauses: shows how long each is, and ends it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._begun: queue.SimpleQueue[float] = queue.SimpleQueue()
        self._over = threading.Semaphore(0)
        monkeypatch.setattr(readers, "time", SimpleNamespace(monotonic=lambda: 0.0, sleep=self._sleep))

    def _sleep(self, pause_s: float) -> None:
        self._begun.put(pause_s)
        assert self._over.acquire(timeout=DEADLINE_S)

    def begun(self) -> float:
        """Wait for the next pause to begin, and return its length."""
        return self._begun.get(timeout=DEADLINE_S)

    def over(self) -> None:
        """End the pause, so that the supervisor looks."""
        self._over.release()

    def next(self) -> float:
        """Let the supervisor look once, and return the length of the pause before that."""
        pause_s = self.begun()
        self.over()
        return pause_s


def test_the_supervisor_looks_less_often_as_long_as_it_finds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """During quick requests, a thousand looks a second would cost more than many of the requests."""
    looks, go_on = Looks(monkeypatch), threading.Event()
    requests = Requests(4, lambda opcode: _wait(go_on) if opcode == SLOW else None)
    requests.ask(QUICK)
    eventually(lambda: not requests.readers._kept)  # it is handled before the thread has noted that it is
    assert [looks.next() for _ in range(5)] == [0.001, 0.002, 0.004, 0.008, 0.008]
    assert looks.begun() == 0.008
    requests.send(SLOW)
    eventually(lambda: requests.readers._kept)
    looks.over()
    assert [looks.next() for _ in range(2)] == [0.008, 0.001], "the second look must have found something"
    requests.ask(QUICK)
    go_on.set()
    assert requests.handled.get(timeout=DEADLINE_S)[0] == SLOW
    looks._over.release(1000)
    requests.end()


def test_the_supervisor_sleeps_while_there_is_no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = Looks(monkeypatch)
    requests = Requests(4, lambda opcode: None)
    requests.ask(QUICK)
    eventually(lambda: not requests.readers._kept)  # it is handled before the thread has noted that it is
    for _ in range(readers._IDLE_POLLS):
        looks.next()
    eventually(lambda: not requests.readers._work.is_set())
    requests.ask(QUICK)
    assert looks.next() == 0.001, "a request must wake it"
    looks._over.release(1000)
    requests.end()


def test_waiting_while_watching_does_not_count_as_slow() -> None:
    """An operation that was slow once keeps the baton again as soon as the rest of it is quick."""
    waits = Waits()
    waits.go_on.set()
    requests = Requests(16, lambda opcode: waits(is_handed_over=False), waits.start)
    requests.readers._slow.add(SLOW)
    found = []
    for _ in range(50):  # on a busy machine a quick request may take a millisecond
        requests.ask(SLOW)
        found.append(waits.has_duty.get(timeout=DEADLINE_S))
    assert not found[0]
    assert any(found)
    requests.end()


def test_a_surprise_when_the_supervisor_sleeps() -> None:
    """The supervisor sleeps while there is no work, and must wake up for the first request, whenever that comes."""
    go_on = threading.Event()
    requests = Requests(4, lambda opcode: None if opcode == QUICK else _wait(go_on))
    for _ in range(50):
        go_on.clear()
        requests.readers._slow.clear()
        requests.readers._work.clear()
        requests.send(SLOW)
        requests.ask(QUICK)
        go_on.set()
        assert requests.handled.get(timeout=DEADLINE_S)[0] == SLOW
    requests.end()


def test_there_are_no_more_threads_than_allowed_and_all_requests_are_handled() -> None:
    inside, go_on = threading.Semaphore(0), threading.Event()

    def handle(opcode: int) -> None:
        inside.release()
        _wait(go_on)

    requests = Requests(5, handle)
    for _ in range(20):
        requests.send(SLOW)
    assert all(inside.acquire(timeout=DEADLINE_S) for _ in range(5))
    assert not inside.acquire(blocking=False)
    go_on.set()
    names = {requests.handled.get(timeout=DEADLINE_S)[1] for _ in range(20)}
    assert len(names) <= 5
    requests.end()


def test_what_was_slow_once_is_quick_again_when_it_is() -> None:
    go_on = threading.Event()
    requests = Requests(16, lambda opcode: _wait(go_on))
    requests.send(SLOW)
    requests.send(QUICK)
    go_on.set()
    assert {requests.handled.get(timeout=DEADLINE_S)[0] for _ in range(2)} == {SLOW, QUICK}
    for _ in range(50):
        requests.ask(SLOW)
    names = [requests.ask(SLOW) for _ in range(200)]
    requests.end()
    assert changes(names) < 150


def test_where_no_thread_can_be_started_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    go_on, tried = threading.Event(), threading.Semaphore(0)
    requests = Requests(16, lambda opcode: None if opcode == QUICK else _wait(go_on))
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        tried.release()
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    for _ in range(2):  # the first time the supervisor tries to start one, the second time the reader itself
        requests.send(SLOW)
        assert tried.acquire(timeout=DEADLINE_S)
        requests.send(QUICK)
        go_on.set()
        assert [requests.handled.get(timeout=DEADLINE_S)[0] for _ in range(2)] == [SLOW, QUICK]
        go_on.clear()
    monkeypatch.setattr(threading.Thread, "start", start)
    requests.send(SLOW)
    requests.ask(QUICK)  # threads can be started again
    go_on.set()
    assert requests.handled.get(timeout=DEADLINE_S)[0] == SLOW
    requests.end()


def test_letting_go_of_a_thread_that_hangs() -> None:
    go_on = threading.Event()
    requests = Requests(2, lambda opcode: _wait(go_on))
    requests.send(SLOW)
    requests.readers.abandon()
    assert requests.readers.ended.is_set()
    go_on.set()
    requests.end()


def _wait(event: threading.Event) -> None:
    assert event.wait(DEADLINE_S)


def changes(names: list[str]) -> int:
    """Count how often the thread changes from one request to the next."""
    return sum(one != other for one, other in itertools.pairwise(names))


def test_the_next_request_is_polled_for_as_long_as_it_comes_at_once() -> None:
    asked: list[bool] = []
    comes = iter([False, False, True, True])

    def is_there() -> bool:
        asked.append(next(comes))
        return asked[-1]

    polling = BusyPolling(is_there)
    polling.poll()
    assert asked == [False, False, True]
    polling.poll()
    assert asked == [False, False, True, True]


def test_where_requests_do_not_come_at_once_fewer_and_fewer_are_polled_for() -> None:
    asked: list[int] = []
    polling = BusyPolling(lambda: asked.append(number))
    for number in range(50):  # noqa: B007 - noted when polled
        polling.poll()
    assert sorted(set(asked)) == [0, 2, 6, 14, 30, 46]
    assert len(asked) <= 6 * 100, "a thread that finds nothing sleeps soon"


def test_one_request_that_comes_late_does_not_end_the_polling_for_long() -> None:
    """After one that came in time, the pauses begin anew."""
    polled: list[int] = []
    in_time = {2}
    polling = BusyPolling(lambda: polled.append(number) or number in in_time)
    for number in range(6):  # noqa: B007 - noted when polled
        polling.poll()
    assert sorted(set(polled)) == [0, 2, 3, 5]


def test_every_reading_thread_polls_before_it_sleeps() -> None:
    ours, theirs = os.pipe()
    polled = []

    class Noting(BusyPolling):
        def __init__(self, is_there: Callable[[], object]) -> None:
            super().__init__(is_there)
            assert not is_there()
            os.write(theirs, b"x")
            assert is_there(), "the kernel's device is polled"

        def poll(self) -> None:
            polled.append(threading.current_thread().name)
            super().poll()

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(readers, "BusyPolling", Noting)
        alone = Readers(lambda _: None, lambda _: None, 4096, 1, descriptor=ours)
        alone.start()
        alone.join()
    os.close(ours)
    os.close(theirs)
    assert polled == ["fuse-1"]
