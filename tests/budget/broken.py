"""Changes that make operations cost more (or less), one for each kind of count, which the tests must notice."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any, Final

from dfs_server.store.redo_log import Record, RedoLog
from dfsfuse.log.quorum_log import QuorumLog
from dfsfuse.namespace.map.journal import Journal
from dfsfuse.vfs.write.saving import Saver


def one_request_more() -> None:
    """Look up the end of the log before each batch."""
    commit = QuorumLog.commit

    def look_first(log: QuorumLog, *arguments: Any) -> bool:
        log.catch_up()
        return commit(log, *arguments)

    QuorumLog.commit = look_first  # type: ignore[method-assign]


def one_slot_more() -> None:
    """Put each change into a batch of its own."""
    portion = Journal.portion
    Journal.portion = lambda pending: portion(pending)[:1]  # type: ignore[method-assign]


def one_fsync_more() -> None:
    """Make servers wait for the disk before they write a vote, too."""
    append = RedoLog.append

    def twice(redo_log: RedoLog, records: Iterable[Record]) -> None:
        os.fsync(redo_log._file)
        append(redo_log, records)

    RedoLog.append = twice  # type: ignore[method-assign]


def no_fsyncs() -> None:
    """Make servers not wait for the disk after they have written a vote."""
    append, wait = RedoLog.append, os.fdatasync

    def without(redo_log: RedoLog, records: Iterable[Record]) -> None:
        os.fdatasync = lambda _: None  # type: ignore[assignment]  (one thread runs at a time)
        try:
            append(redo_log, records)
        finally:
            os.fdatasync = wait

    RedoLog.append = without  # type: ignore[method-assign]


def one_hand_over_more() -> None:
    """Save files in another thread, for which the writer waits."""
    save = Saver.save

    def by_another_thread(saver: Saver, *arguments: Any, **options: Any) -> Any:
        return saver._context.background.submit(save, saver, *arguments, **options).result()

    Saver.save = by_another_thread  # type: ignore[method-assign]


VARIANTS: Final[dict[str, Callable[[], None]]] = {
    function.__name__: function
    for function in (one_request_more, one_slot_more, one_fsync_more, no_fsyncs, one_hand_over_more)
}
