"""The bindings that can serve a Vfs to the kernel, by name; and serving a Vfs until it is unmounted.

A binding is imported only when it is used: each needs things that a machine may lack. `fusepy` needs libfuse 2;
`kernel` needs only Linux. The choice between them was made before (`choice`).

Signals: SIGTERM and SIGINT mean "unmount cleanly", SIGHUP means "read the config again". A thread waits for them
(`signal.sigwait`), since Python's own handlers cannot run while the main thread is inside libfuse, and libfuse's
handlers would cut the connection to the kernel while pages of mapped files are still unwritten. If programs hold the
mount for longer than `RELEASE_TIMEOUT_S` after SIGTERM or SIGINT, they are cut off: libfuse stops immediately when the
main thread gets SIGUSR1, which was given libfuse's own handler; the kernel binding has a method for it. The three
signals must be blocked (`signals_held`) before any other thread starts, so that no other thread receives them.
So is SIGPIPE, which Python ignores: when libfuse ends, it resets SIGPIPE to its default action
(`fuse_remove_signal_handlers`, fuse_signals.c of 2.9), and a server that closes its connection while the remaining data
is being saved would then kill the process.
"""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from dfsfuse.errors import DfsError
from dfsfuse.mount import libfuse, unmounting
from dfsfuse.mount.errors import FuseMissingError
from dfsfuse.mount.options import MountOptions
from dfsfuse.vfs.vfs import Vfs

log = logging.getLogger(__name__)

ENDING_SIGNALS = frozenset({signal.SIGTERM, signal.SIGINT})
HELD_SIGNALS = ENDING_SIGNALS | {signal.SIGHUP}
STOPS_LIBFUSE = signal.SIGUSR1
RELEASE_TIMEOUT_S = 5.0


@contextmanager
def signals_held() -> Iterator[None]:
    """Keep SIGTERM, SIGINT and SIGHUP pending, in this thread and those it starts, until `serve` handles them; and
    keep SIGPIPE from having any effect, whatever libfuse does to it."""
    blocked = HELD_SIGNALS | {signal.SIGPIPE}
    hangup = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # an ignored signal, as under nohup, would never be pending
    broken_pipe = signal.getsignal(signal.SIGPIPE)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, blocked)
    try:
        yield
    finally:
        for number in blocked & signal.sigpending():
            signal.sigwait({number})  # it has been acted on
        signal.signal(signal.SIGPIPE, broken_pipe)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        signal.signal(signal.SIGHUP, hangup)


def serve(
    vfs: Vfs,
    mountpoint: Path,
    options: MountOptions,
    on_ready: Callable[[], None],
    on_hangup: Callable[[], None] = lambda: None,
) -> None:
    """Mount `vfs` and serve it until it is unmounted. Call it from the main thread, with `signals_held`.

    `on_ready` is called once, when the mount works; `on_hangup` for each SIGHUP after that, in a separate thread.
    Raises `FuseMissingError` if it never worked.
    """
    if options.binding == "fusepy":
        _serve_by_fusepy(vfs, mountpoint, options, on_ready, on_hangup)
    else:
        _serve_by_kernel(vfs, mountpoint, options, on_ready, on_hangup)


def _serve_by_kernel(
    vfs: Vfs, mountpoint: Path, options: MountOptions, on_ready: Callable[[], None], on_hangup: Callable[[], None]
) -> None:
    from dfsfuse.mount.kernel_session import KernelSession

    session = KernelSession(
        vfs,
        mountpoint,
        options.fuse,
        eio=options.eio,
        wait_s=options.wait_s,
        unmount_timeout_s=options.unmount_timeout_s,
    )
    ending = _Signals(mountpoint, partial(vfs.ending.is_near, options.unmount_timeout_s), session.cut_off, on_hangup)

    def ready() -> None:
        on_ready()
        ending.start()

    try:
        session.serve(ready)
    finally:
        ending.served()


def _serve_by_fusepy(
    vfs: Vfs, mountpoint: Path, options: MountOptions, on_ready: Callable[[], None], on_hangup: Callable[[], None]
) -> None:
    libfuse.require()
    from dfsfuse.mount.fusepy_operations import FusepyOperations
    from dfsfuse.mount.fusepy_session import FusepySession

    ending = _Signals(mountpoint, partial(vfs.ending.is_near, options.unmount_timeout_s), _stop_libfuse, on_hangup)

    def ready() -> None:
        libfuse.copy_handler(signal.SIGHUP, STOPS_LIBFUSE)
        on_ready()
        ending.start()

    try:
        # `mountpoints.check` has already checked that the folder is empty; libfuse need not do so again.
        fuse_options = {**options.fuse, "nonempty": True}
        operations = FusepyOperations(vfs, ready, eio=options.eio, wait_s=options.wait_s)
        FusepySession(operations, mountpoint, fuse_options)
    except RuntimeError as error:
        if not ending.started:
            raise FuseMissingError(f"{mountpoint}: libfuse could not mount") from error
        log.exception("%s: libfuse ended with an error", mountpoint)
    finally:
        signal.signal(STOPS_LIBFUSE, signal.SIG_IGN)
        ending.served()


def _stop_libfuse() -> None:
    main = threading.main_thread()
    if main.ident is not None:
        signal.pthread_kill(main.ident, STOPS_LIBFUSE)


class _Signals:
    """Waits for signals in its own thread: unmounts on SIGTERM or SIGINT, and calls `on_hangup` on SIGHUP. `on_end` is
    called before unmounting, since unmounting may have to wait for operations; `cut_off` ends the use by remaining
    programs."""

    def __init__(
        self,
        mountpoint: Path,
        on_end: Callable[[], None],
        cut_off: Callable[[], None],
        on_hangup: Callable[[], None],
    ) -> None:
        self._mountpoint = mountpoint
        self._on_end = on_end
        self._cut_off = cut_off
        self._on_hangup = on_hangup
        self._served = threading.Event()
        self.started = False

    def start(self) -> None:
        self.started = True
        threading.Thread(target=self._wait, name="ending", daemon=True).start()

    def served(self) -> None:
        self._served.set()

    def _wait(self) -> None:
        while (number := signal.sigwait(HELD_SIGNALS)) == signal.SIGHUP:
            if not self._served.is_set():
                self._hang_up()
        log.info("%s: %s, unmounting", self._mountpoint, signal.Signals(number).name)
        if self._served.is_set():
            return
        self._on_end()
        try:
            unmounting.detach_at_any_cost(self._mountpoint)
        except (DfsError, OSError) as error:
            log.warning("%s", error)
        if not self._served.wait(RELEASE_TIMEOUT_S):
            log.warning("%s: programs still use it; cutting them off", self._mountpoint)
            self._cut_off()

    def _hang_up(self) -> None:
        try:
            self._on_hangup()
        except Exception:
            log.exception("%s: SIGHUP: an unexpected exception", self._mountpoint)
