"""The ways in which a Vfs can be served to the kernel, by name; and serving one until it is unmounted.

A binding is imported only when it is used: each needs things that a machine may not have. `fusepy` needs libfuse 2;
`kernel` needs Linux only. Which one it is was decided before (`choice`).

Signals: SIGTERM and SIGINT mean "unmount cleanly": a thread waits for them (`signal.sigwait`), since Python's own
handlers cannot run while the main thread is inside libfuse, and libfuse's would cut the connection to the kernel with
pages of mapped files still unwritten. If programs hold the mount for longer than `RELEASE_TIMEOUT_S` after that, they
are cut off: libfuse stops at once when the main thread gets SIGHUP; the kernel binding is told so. SIGTERM and SIGINT
must be blocked (`signals_held`) before any other thread starts, so that none of them is hit.
"""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from dfsfuse.errors import DfsError
from dfsfuse.mount import libfuse, unmounting
from dfsfuse.mount.errors import FuseMissingError
from dfsfuse.mount.options import MountOptions
from dfsfuse.vfs.vfs import Vfs

log = logging.getLogger(__name__)

ENDING_SIGNALS = frozenset({signal.SIGTERM, signal.SIGINT})
RELEASE_TIMEOUT_S = 5.0


@contextmanager
def signals_held() -> Iterator[None]:
    """Keep SIGTERM and SIGINT pending, in this thread and those it starts, until `serve` takes them.

    SIGHUP is left to libfuse while it runs and is ignored otherwise: the mount outlives its terminal's last words.
    """
    hangup = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING_SIGNALS)
    try:
        yield
    finally:
        for number in ENDING_SIGNALS & signal.sigpending():
            signal.sigwait({number})  # it has done its work
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        signal.signal(signal.SIGHUP, hangup)


def serve(vfs: Vfs, mountpoint: Path, options: MountOptions, on_ready: Callable[[], None]) -> None:
    """Mount `vfs` and serve it until it is unmounted. Call it from the main thread, with `signals_held`.

    `on_ready` is called once, when the mount works. Raises `FuseMissingError` if it never did.
    """
    if options.binding == "fusepy":
        _serve_by_fusepy(vfs, mountpoint, options, on_ready)
    else:
        _serve_by_kernel(vfs, mountpoint, options, on_ready)


def _serve_by_kernel(vfs: Vfs, mountpoint: Path, options: MountOptions, on_ready: Callable[[], None]) -> None:
    from dfsfuse.mount.kernel_session import KernelSession

    session = KernelSession(vfs, mountpoint, options.fuse)
    ending = _Ending(mountpoint, session.cut_off)

    def ready() -> None:
        on_ready()
        ending.start()

    try:
        session.serve(ready)
    finally:
        ending.served()


def _serve_by_fusepy(vfs: Vfs, mountpoint: Path, options: MountOptions, on_ready: Callable[[], None]) -> None:
    libfuse.require()
    from dfsfuse.mount.fusepy_operations import FusepyOperations
    from dfsfuse.mount.fusepy_session import FusepySession

    ending = _Ending(mountpoint, _hang_up)

    def ready() -> None:
        on_ready()
        ending.start()

    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # libfuse takes over only what nobody else handles
    try:
        # Whether the folder is empty was looked at before (`mountpoints.check`); libfuse need not ask again.
        fuse_options = {**options.fuse, "nonempty": True}
        FusepySession(FusepyOperations(vfs, ready), mountpoint, fuse_options)
    except RuntimeError as error:
        if not ending.started:
            raise FuseMissingError(f"{mountpoint}: libfuse could not mount") from error
        log.exception("%s: libfuse ended with an error", mountpoint)
    finally:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        ending.served()


def _hang_up() -> None:
    main = threading.main_thread()
    if main.ident is not None:
        signal.pthread_kill(main.ident, signal.SIGHUP)


class _Ending:
    """Waits for SIGTERM or SIGINT in a thread of its own and unmounts. `cut_off` ends what programs still use."""

    def __init__(self, mountpoint: Path, cut_off: Callable[[], None]) -> None:
        self._mountpoint = mountpoint
        self._cut_off = cut_off
        self._served = threading.Event()
        self.started = False

    def start(self) -> None:
        self.started = True
        threading.Thread(target=self._wait, name="ending", daemon=True).start()

    def served(self) -> None:
        self._served.set()

    def _wait(self) -> None:
        number = signal.sigwait(ENDING_SIGNALS)
        log.info("%s: %s, unmounting", self._mountpoint, signal.Signals(number).name)
        if self._served.is_set():
            return
        try:
            unmounting.detach_at_any_cost(self._mountpoint)
        except (DfsError, OSError) as error:
            log.warning("%s", error)
        if not self._served.wait(RELEASE_TIMEOUT_S):
            log.warning("%s: programs still use it; cutting them off", self._mountpoint)
            self._cut_off()
