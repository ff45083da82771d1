"""Keeps the namespace's record of its servers true (`dfsfuse.namespace.records.members`), and refuses a config that
differs.

`open` is called once, before anything is written: it raises what is wrong with the config. From `start` on a thread
writes down what is found out later: a server that came back with another disk, and answers that were not what they
should be. `close` writes what is left, if that can be done at once. All of it but the refusal is for people and for who
heals: a failure to write is logged and tried again.

Threads: its own, and those that tell it something, which never wait.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping
from typing import Final, Protocol

from dfsfuse.common.worker import Worker
from dfsfuse.errors import DfsError, WrongServerError
from dfsfuse.namespace.map.transactions import MapStore, Transaction
from dfsfuse.namespace.records import members
from dfsfuse.net.health.server import Fault

PAUSE_S: Final = 5.0
"""Between two writings: a server that lies all the time is noted seldom."""
KNOWN_S: Final = 1.0
IDENTITY_BYTES: Final = 16
"""Length of a namespace's identity."""

log = logging.getLogger(__name__)


class ClusterLike(Protocol):
    """What is needed of a `Cluster`."""

    names: dict[int, str]
    on_news: Callable[[], None]

    def identities(self) -> Mapping[int, bytes]: ...
    def faults(self) -> Mapping[int, Fault]: ...
    def usable(self) -> frozenset[int]: ...


class ServerRegister:
    """See the module."""

    def __init__(
        self,
        store: MapStore,
        cluster: ClusterLike,
        *,
        pause_s: float = PAUSE_S,
        time_ns: Callable[[], int] = time.time_ns,
        random_bytes: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._store = store
        self._cluster = cluster
        self._pause_s = pause_s
        self._time_ns = time_ns
        self._random_bytes = random_bytes
        self._written: dict[int, Fault] = {}
        """What was noted of faults already."""
        self._thread = Worker("server-register", None, "writing down the servers' identities", stop_s=None)

    def open(self) -> None:
        """Compare the config with the namespace, and write down who is who.

        Raises `WrongServerError`; `UnavailableError` if no server can tell.
        """
        known = self._store.read(members.find, max_age_s=KNOWN_S)
        members.check(known, self._cluster.names)
        identities = self._cluster.identities()
        nameless = not self._store.read(members.namespace_identity, max_age_s=KNOWN_S)
        if nameless or any(id not in known or known[id].identity != identity for id, identity in identities.items()):
            self._update_or_try_again()

    def start(self) -> None:
        """Begin to write down what is found out."""
        self._cluster.on_news = self._thread.wake
        self._thread.start(self._step)

    def close(self) -> None:
        """End; what was found out and not written down yet is, if enough servers answer."""
        self._thread.close()
        if self._unwritten():
            self._update()

    def _step(self) -> None:
        try:
            self._update_or_try_again()
        except WrongServerError as error:
            log.error("%s", error)  # noqa: TRY400 (for people: which folder is wrong, and what to do)
        except Exception:
            self._thread.wake()
            raise
        finally:
            self._thread.wait(self._pause_s)

    def _unwritten(self) -> dict[int, Fault]:
        """The faults since they were last written down."""
        found = {}
        for id, fault in self._cluster.faults().items():
            times = fault.times - (self._written[id].times if id in self._written else 0)
            if times:
                found[id] = fault._replace(times=times)
        return found

    def _update_or_try_again(self) -> None:
        if not self._update():
            self._thread.wake()

    def _update(self) -> bool:
        """Write down what is new. False: that cannot be done now. Raises `WrongServerError` only."""
        if len(self._cluster.usable()) <= len(self._cluster.names) // 2:
            return False
        identities, now_ns = dict(self._cluster.identities()), self._time_ns()
        faults, known_faults = self._unwritten(), dict(self._cluster.faults())
        new_identity = self._random_bytes(IDENTITY_BYTES)

        def work(transaction: Transaction) -> frozenset[int]:
            replaced = members.meet(transaction, self._cluster.names, identities, now_ns, new_identity)
            if faults:
                members.note_faults(transaction, faults)
            return replaced

        try:
            replaced = self._store.transact(work)
        except WrongServerError:
            raise
        except (DfsError, OSError) as error:
            log.info("who is which server could not be written down: %s", error)
            return False
        self._written.update((id, known_faults[id]) for id in faults)
        for id in sorted(replaced):
            log.warning("%s has another disk than before: what it held is made anew", self._cluster.names[id])
        return True
