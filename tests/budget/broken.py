"""Ways in which an operation comes to cost more (or less), one for each kind of count: the tests must see them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from sqlite3 import Connection
from typing import Any, Final

from dfs_server.database import Database
from dfsfuse.cluster.quorum_log import QuorumLog
from dfsfuse.namespace.journal import Journal
from dfsfuse.vfs.saving import Saver


def one_request_more() -> None:
    """Each batch is preceded by a look for the end of the log."""
    commit = QuorumLog.commit

    def look_first(log: QuorumLog, *arguments: Any) -> bool:
        log.catch_up()
        return commit(log, *arguments)

    QuorumLog.commit = look_first  # type: ignore[method-assign]


def one_slot_more() -> None:
    """Each change is a batch of its own."""
    portion = Journal.portion
    Journal.portion = lambda pending: portion(pending)[:1]  # type: ignore[method-assign]


def _with_each_transaction(then: Callable[[Database, bool], bool]) -> None:
    transaction = Database.transaction

    @contextmanager
    def other(database: Database, *, durable: bool) -> Iterator[Connection]:
        with transaction(database, durable=then(database, durable)) as db:
            yield db

    Database.transaction = other  # type: ignore[method-assign]


def one_fsync_more() -> None:
    """Servers wait for the disk before a transaction too."""

    def twice(database: Database, durable: bool) -> bool:
        if durable:
            descriptor = os.open(database.path, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)
        return durable

    _with_each_transaction(twice)


def no_fsyncs() -> None:
    """Servers do not wait for the disk at all."""
    _with_each_transaction(lambda database, durable: False)


def one_hand_over_more() -> None:
    """A file is saved by another thread, for which its writer waits."""
    save = Saver.save

    def by_another_thread(saver: Saver, *arguments: Any, **options: Any) -> Any:
        return saver._context.background.submit(save, saver, *arguments, **options).result()

    Saver.save = by_another_thread  # type: ignore[method-assign]


VARIANTS: Final[dict[str, Callable[[], None]]] = {
    function.__name__: function
    for function in (one_request_more, one_slot_more, one_fsync_more, no_fsyncs, one_hand_over_more)
}
