"""The order in which the kernel is notified, and waiting for that."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from dfsfuse.mount.notifications import Notifications

FILE, OTHER, FOLDER = 3, 4, 2
DEADLINE_S = 60.0


class FakeDevice:
    """Records notifications; `on_inode` is called during each."""

    def __init__(self) -> None:
        self.wait_until_sent: list[tuple[int, object]] = []
        self.on_inode: Callable[[], None] = lambda: None

    def inval_inode(self, ino: int, offset: int = 0, length: int = 0) -> bool:
        self.wait_until_sent.append((ino, offset))
        self.on_inode()
        return True

    def inval_entry(self, parent: int, name: bytes, *, expire_only: bool = False) -> bool:
        assert expire_only
        self.wait_until_sent.append((parent, name))
        return True


@pytest.fixture
def device() -> FakeDevice:
    return FakeDevice()


@pytest.fixture
def wake() -> threading.Event:
    return threading.Event()


@pytest.fixture
def news(device: FakeDevice, wake: threading.Event) -> Notifications:
    return Notifications(device, wake.set, patience_s=DEADLINE_S)


def begin(pool: ThreadPoolExecutor, news: Notifications, wake: threading.Event) -> Future[bool]:
    """Start waiting, on another thread, until the kernel was notified about the file."""
    wake.clear()
    waiting = pool.submit(news.wait_until_sent, FILE)
    assert wake.wait(DEADLINE_S)
    return waiting


def test_of_each_inode_it_is_told_once_whatever_changed(news: Notifications, device: FakeDevice) -> None:
    news.add_inode(FILE, is_data=True)
    news.add_inode(OTHER, is_data=False)
    news.add_inode(FILE, is_data=False)
    news.add_name(FOLDER, b"f")
    news.send_all()
    news.send_all()
    assert device.wait_until_sent == [(FOLDER, b"f"), (FILE, 0), (OTHER, -1)]


def test_what_somebody_waits_for_comes_first(news: Notifications, device: FakeDevice, wake: threading.Event) -> None:
    news.add_name(FOLDER, b"f")
    news.add_inode(OTHER, is_data=True)
    news.add_inode(FILE, is_data=True)
    with ThreadPoolExecutor(1) as pool:
        waiting = begin(pool, news, wake)
        news.send_all()
        assert waiting.result(DEADLINE_S)
    assert device.wait_until_sent == [(FILE, 0), (FOLDER, b"f"), (OTHER, 0)]


def test_a_call_during_the_notification_waits_too(
    news: Notifications, device: FakeDevice, wake: threading.Event
) -> None:
    with ThreadPoolExecutor(1) as pool:
        waiting: list[Future[bool]] = []

        def somebody_comes() -> None:
            waiting.append(begin(pool, news, wake))
            assert not waiting[0].done()

        device.on_inode = somebody_comes
        news.add_inode(FILE, is_data=True)
        news.send_all()
        assert waiting[0].result(DEADLINE_S)
    assert device.wait_until_sent == [(FILE, 0)]


def test_nothing_waits_for_past_notifications_or_after_the_end(news: Notifications, device: FakeDevice) -> None:
    assert news.wait_until_sent(FILE)
    news.add_inode(FILE, is_data=True)
    news.end()
    assert not news.wait_until_sent(FILE)
    news.send_all()
    assert device.wait_until_sent == []


def test_a_refusal_of_the_kernel_ends_the_wait(news: Notifications, device: FakeDevice) -> None:
    def refuse() -> None:
        raise OSError(5, "as a test")

    device.on_inode = refuse
    news.add_inode(FILE, is_data=True)
    news.add_inode(OTHER, is_data=True)
    news.send_all()
    assert device.wait_until_sent == [(FILE, 0), (OTHER, 0)]
    assert news.wait_until_sent(FILE)
