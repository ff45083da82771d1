"""Keeps the namespace's record of its servers up to date (`dfsfuse.namespace.records.members`), and refuses a config
that differs.

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

from dfsfuse.common.events import Events
from dfsfuse.common.worker import Worker
from dfsfuse.errors import DfsError, WrongServerError
from dfsfuse.namespace.map.transactions import MapStore, Transaction
from dfsfuse.namespace.records import members
from dfsfuse.net.health.server import Fault

PAUSE_S: Final = 5.0
"""The pause between two writes: a server that keeps lying is noted rarely."""
KNOWN_S: Final = 1.0
IDENTITY_BYTES: Final = 16
"""Length of a namespace's identity."""

log = logging.getLogger(__name__)


class ClusterLike(Protocol):
    """The part of `Cluster` that is used here."""

    names: dict[int, str]

    def identities(self) -> Mapping[int, bytes]: ...
    def faults(self) -> Mapping[int, Fault]: ...
    def usable(self) -> frozenset[int]: ...


class ServerRegister:
    """See the module."""

    def __init__(
        self,
        store: MapStore,
        cluster: ClusterLike,
        events: Events,
        *,
        pause_s: float = PAUSE_S,
        time_ns: Callable[[], int] = time.time_ns,
        random_bytes: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._store = store
        self._cluster = cluster
        self._events = events
        self._pause_s = pause_s
        self._time_ns = time_ns
        self._random_bytes = random_bytes
        self._written: dict[int, Fault] = {}
        """The faults that were noted already."""
        self._thread = Worker("server-register", None, "writing down the servers' identities", stop_s=None)

    def open(self) -> None:
        """Compare the config with the namespace, and record which server is which.

        Raises `WrongServerError`; `UnavailableError` if no server can tell.
        """
        known = self._store.read(members.find, max_age_s=KNOWN_S)
        members.check(known, self._cluster.names)
        identities = self._cluster.identities()
        nameless = not self._store.read(members.namespace_identity, max_age_s=KNOWN_S)
        if nameless or any(id not in known or known[id].identity != identity for id, identity in identities.items()):
            self._update_or_try_again()

    def start(self) -> None:
        """Start recording what is found out."""
        self._events.on_servers_changed = self._thread.wake
        self._thread.start(self._step)

    def close(self) -> None:
        """Stop; what was found out and not recorded yet is recorded if enough servers answer."""
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
        """Return the faults since they were last recorded."""
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
        """Record what is new. Returns False if that is impossible now. Raises only `WrongServerError`."""
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
            log.info("the servers' identities could not be recorded: %s", error)
            return False
        self._written.update((id, known_faults[id]) for id in faults)
        for id in sorted(replaced):
            log.warning("%s has another disk than before: its data is being recreated", self._cluster.names[id])
        return True
