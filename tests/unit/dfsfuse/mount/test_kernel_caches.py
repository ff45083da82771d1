"""How the kernel is notified of others' changes, and how open() treats them."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable

import pytest

from dfsfuse.common.events import Changed
from dfsfuse.errors import UnavailableError
from dfsfuse.mount.kernel_caches import POLL_EVERY_S, POLL_WHILE_OPEN_S, KernelCaches
from dfsfuse.vfs.names.changed import changes_of

ROOT, FOLDER, FILE, OTHER = 1, 2, 3, 4


class FakeDevice:
    """Records the notifications to the kernel."""

    def __init__(self) -> None:
        self.told: list[tuple[object, ...]] = []
        self.refusal: OSError | None = None
        self.something = threading.Event()

    def inval_inode(self, ino: int, offset: int = 0, length: int = 0) -> bool:
        self.told.append((ino, offset))
        self.something.set()
        if self.refusal is not None:
            raise self.refusal
        return True

    def inval_entry(self, parent: int, name: bytes, *, expire_only: bool = False) -> bool:
        assert expire_only
        self.told.append((parent, name))
        self.something.set()
        return True


@pytest.fixture
def device() -> FakeDevice:
    return FakeDevice()


@pytest.fixture
def caches(device: FakeDevice) -> KernelCaches:
    """Only the test notifies the kernel, and nothing waits for that."""
    caches = KernelCaches(lambda: None, device, 1.0, patience_s=0.0)
    caches.given(ROOT, b"d", FOLDER)
    caches.given(FOLDER, b"f", FILE)
    return caches


def is_stale(caches: KernelCaches, ino: int, who: int = 42) -> bool:
    try:
        caches.opened(ino, who)
    except OSError as error:
        assert error.errno == errno.ESTALE
        return True
    return False


def test_the_kernel_is_told_of_what_it_knows_only(caches: KernelCaches, device: FakeDevice) -> None:
    changes = [Changed(FOLDER, b"f"), Changed(FOLDER, b"g"), Changed(FILE), Changed(FILE, is_data=True), Changed(77)]
    caches.changed([*changes, Changed(ROOT)])
    caches.notify()
    assert device.told == [(FOLDER, b"f"), (FILE, 0), (ROOT, -1)]
    caches.changed(changes[:1])
    caches.notify()
    assert len(device.told) == 3  # the kernel does not have that name any more


def test_a_name_that_another_mount_changed_is_not_opened_by_once(caches: KernelCaches) -> None:
    caches.changed([Changed(FOLDER, b"f")])
    assert is_stale(caches, FILE)
    assert not is_stale(caches, FILE)
    caches.given(FOLDER, b"f", OTHER)
    assert not is_stale(caches, OTHER)


def test_a_retried_call_succeeds_even_if_the_name_has_changed_once_more(caches: KernelCaches) -> None:
    """The name that the kernel looked up again was right at some moment since the call."""
    caches.changed([Changed(FOLDER, b"f")])
    assert is_stale(caches, FILE)
    caches.given(FOLDER, b"f", OTHER)
    caches.changed([Changed(FOLDER, b"f")])
    assert not is_stale(caches, OTHER)
    caches.given(FOLDER, b"f", OTHER)
    caches.changed([Changed(FOLDER, b"f")])
    assert is_stale(caches, OTHER), "this is another call"


def test_others_are_not_let_in_because_of_that(caches: KernelCaches) -> None:
    caches.changed([Changed(FOLDER, b"f")])
    assert is_stale(caches, FILE, who=1)
    assert is_stale(caches, FILE, who=2)
    assert not is_stale(caches, FILE, who=1)
    assert not is_stale(caches, FILE, who=2)


def test_threads_that_have_no_number_are_told_once(caches: KernelCaches) -> None:
    caches.changed([Changed(FOLDER, b"f")])
    assert is_stale(caches, FILE, who=0)
    assert not is_stale(caches, FILE, who=0)


def test_an_exemption_does_not_last(device: FakeDevice) -> None:
    now = 100.0
    caches = KernelCaches(lambda: None, device, 1.0, clock=lambda: now, patience_s=0.0)
    caches.given(ROOT, b"d", FOLDER)
    caches.given(ROOT, b"e", OTHER)
    caches.changed([Changed(ROOT, b"d"), Changed(ROOT, b"e")])
    assert is_stale(caches, FOLDER)
    now += 6.0
    assert is_stale(caches, OTHER)


def test_an_excuse_is_for_what_is_looked_up_again_and_not_for_the_next_call(caches: KernelCaches) -> None:
    """The first call may have ended with the lookup, which found that the name is gone."""
    caches.given(ROOT, b"e", OTHER)
    caches.changed([Changed(ROOT, b"d")])
    assert is_stale(caches, FOLDER)
    caches.changed([Changed(ROOT, b"e")])
    assert is_stale(caches, OTHER), "another call, by a cached name"
    assert not is_stale(caches, OTHER), "the starting point, a working folder, is not looked up"


def test_a_retried_call_may_come_by_other_names(caches: KernelCaches) -> None:
    """Names that were not looked up since are checked together with the change itself, as at first."""
    caches.given(ROOT, b"e", OTHER)
    caches.changed([Changed(ROOT, b"d")])
    assert is_stale(caches, FOLDER)
    assert caches.route(42, OTHER) == [(ROOT, b"e", OTHER)]
    caches.changed([Changed(ROOT, b"e")])
    assert is_stale(caches, OTHER)
    caches.given(ROOT, b"new", OTHER)
    assert caches.route(42, OTHER) == []


def test_the_way_is_the_names_upwards(caches: KernelCaches) -> None:
    caches.given(ROOT, b"x", OTHER)
    assert caches.route(42, FILE) == [(FOLDER, b"f", FILE), (ROOT, b"d", FOLDER)]
    assert caches.route(42, FOLDER, OTHER) == [(ROOT, b"d", FOLDER), (ROOT, b"x", OTHER)]
    caches.given(ROOT, b"link", FILE)
    assert caches.route(42, FILE) == [], "it has two names, and which one was used is not known"
    assert caches.route(42, ROOT) == []


def test_open_takes_old_attributes_from_the_kernel_before_it_is_answered(
    caches: KernelCaches, device: FakeDevice
) -> None:
    caches.changed([Changed(FILE, is_data=True)])
    assert not is_stale(caches, FILE)
    assert device.told == [(FILE, -1)]
    caches.notify()
    device.told.clear()
    assert not is_stale(caches, FILE)
    assert device.told == [], "it was notified already"


def test_what_is_known_when_a_file_is_opened_or_locked_is_told_before_and_not_again(device: FakeDevice) -> None:
    """A notification of a change makes the kernel drop a size that it is just being given, and read to the old one."""
    caches = KernelCaches(lambda: None, device, 0.0, patience_s=60.0)
    caches.given(ROOT, b"f", FILE)
    caches.start()
    try:
        caches.changed([Changed(FILE), Changed(FILE, is_data=True)])
        caches.opened(FILE, 42)
        assert (FILE, 0) in device.told
        caches.locked(FILE, lambda: None, lambda _: None)
        before = list(device.told)
        caches.opened(FILE, 42)
    finally:
        caches.close()
    assert device.told == before
    assert before[-1] == (FILE, 0)


@pytest.mark.parametrize("is_refused", [False, True])
def test_a_lock_takes_data_from_the_kernel_but_never_on_a_thread_that_serves_requests(
    caches: KernelCaches, device: FakeDevice, is_refused: bool
) -> None:
    """The kernel may wait for requests about these pages, which would never be answered if all threads waited here."""
    later: list[Callable[[], None]] = []
    answered: list[bool] = []
    if is_refused:
        device.refusal = OSError(errno.ENOTCONN, "as a test")
    caches.locked(FILE, lambda: answered.append(True), later.append)
    assert (device.told, answered) == ([], []), "it takes too long, so this thread neither notifies nor waits"
    later.pop()()
    assert (device.told, answered) == ([(FILE, 0)], [True])


def test_a_change_while_the_kernel_is_told_of_an_earlier_one(caches: KernelCaches, device: FakeDevice) -> None:
    told = device.inval_inode

    def tell(ino: int, offset: int = 0, length: int = 0) -> bool:
        device.inval_inode = told  # type: ignore[method-assign]
        caches.changed([Changed(FILE)])
        return told(ino, offset, length)

    caches.changed([Changed(FILE)])
    device.inval_inode = tell  # type: ignore[method-assign]
    caches.notify()
    assert device.told == [(FILE, -1), (FILE, -1)]


def test_nor_is_what_is_below_it(caches: KernelCaches) -> None:
    caches.changed([Changed(ROOT, b"d")])
    assert is_stale(caches, FILE)
    assert not is_stale(caches, FILE)


def test_what_was_looked_up_since_is_right(caches: KernelCaches) -> None:
    caches.changed([Changed(FOLDER, b"f")])
    caches.given(FOLDER, b"f", FILE)
    assert not is_stale(caches, FILE)


def test_attributes_and_data_may_change_under_a_name(caches: KernelCaches) -> None:
    caches.changed([Changed(FILE), Changed(FILE, is_data=True)])
    assert not is_stale(caches, FILE)


def test_what_this_mount_renames_goes_on(caches: KernelCaches) -> None:
    caches.given(ROOT, b"x", OTHER)
    caches.moved(FOLDER, b"f", ROOT, b"x", exchanged=True)
    caches.changed([Changed(FOLDER, b"f")])
    assert (is_stale(caches, FILE), is_stale(caches, OTHER)) == (False, True)
    caches.changed([Changed(ROOT, b"x")])
    assert is_stale(caches, FILE, who=1)


def test_removed_and_forgotten_names_are_not_kept(caches: KernelCaches, device: FakeDevice) -> None:
    caches.removed(FOLDER, b"f")
    caches.forgotten(FOLDER, lambda _: False)
    caches.forgotten(FILE, lambda _: True)
    caches.changed([Changed(FOLDER, b"f"), Changed(ROOT, b"d"), Changed(FILE)])
    caches.notify()
    assert device.told == [(FILE, -1)]


def test_when_anything_may_have_changed(caches: KernelCaches, device: FakeDevice) -> None:
    caches.changed(None)
    caches.notify()
    assert set(device.told) == {(ROOT, b"d"), (FOLDER, b"f"), (FOLDER, 0), (FILE, 0)}
    assert is_stale(caches, FILE)


def test_the_thread_looks_while_the_kernel_relies_on_something(device: FakeDevice) -> None:
    now = 100.0
    looks = 0

    def look() -> None:
        nonlocal looks, now
        looks += 1
        if looks == 1:
            raise UnavailableError("no server answers")
        caches.changed([Changed(FILE)])
        now += 10.0

    caches = KernelCaches(look, device, 5.0, clock=lambda: now)
    caches.start()
    caches.given(ROOT, b"f", FILE)
    assert device.something.wait(10.0)
    caches.close()
    assert looks == 2
    assert device.told == [(FILE, -1)]


def test_an_unexpected_exception_does_not_end_the_thread(device: FakeDevice) -> None:
    now = 100.0
    looks = 0

    def look() -> None:
        nonlocal looks, now
        looks += 1
        if looks == 1:
            raise ValueError("nobody foresaw this")
        caches.changed([Changed(FILE)])
        now += 10.0

    caches = KernelCaches(look, device, 5.0, clock=lambda: now)
    caches.start()
    caches.given(ROOT, b"f", FILE)
    assert device.something.wait(10.0)
    caches.close()
    assert device.told == [(FILE, -1)]


def test_what_keys_stand_for() -> None:
    number = (7).to_bytes(8, "big")
    keys = [b"d/" + number + b"/na/me", b"i/" + number, b"e/" + number + number, b"o/" + number, b"n"]
    assert changes_of(keys) == [Changed(7, b"na/me"), Changed(7), Changed(7, is_data=True)]


def test_changes_of_a_mapped_file_are_notified_within_a_second(device: FakeDevice) -> None:
    """A program that reads a mapping sends no requests, so the mount looks idle."""
    now, mapped = 100.0, [False]
    caches = KernelCaches(lambda: None, device, 1.0, clock=lambda: now, is_mapped=lambda: mapped[0])
    assert caches.next_poll_s() is None
    caches.given(ROOT, b"f", FILE)
    caches.opened(FILE, 42)
    mapped[0] = True
    assert caches.next_poll_s() == POLL_EVERY_S
    now += 3600.0
    assert caches.next_poll_s() == POLL_WHILE_OPEN_S < 1
    mapped[0] = False
    assert caches.next_poll_s() is None
