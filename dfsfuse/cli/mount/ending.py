"""The end of a mount: all data is saved, or the rest is kept in a local folder, and one sentence reports that.

Bounded: saving goes on for as long as it makes progress, and at most `patience_s` without any. Then the rest is written
to the first usable state folder of the user (`dfsfuse.upkeep.recovery.kept`), from which `dfc recover` writes it to the
servers.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from dfsfuse.cli.dfc.commands.recover import kept_on_this_machine
from dfsfuse.cli.output import counted, human_size, printable
from dfsfuse.cli.session import Session
from dfsfuse.errors import DfsError, UnavailableError
from dfsfuse.mount import state_folders
from dfsfuse.upkeep.recovery import kept as kept_folders
from dfsfuse.upkeep.recovery.kept import Kept
from dfsfuse.upkeep.recovery.manifest import Manifest, Namespace
from dfsfuse.vfs.write.left_over import LeftOver

log = logging.getLogger(__name__)
_NAMES_MAX = 10


@contextmanager
def saved(session: Session, mountpoint: Path, patience_s: float) -> Iterator[None]:
    """A mount's session: when the block ends, all data is saved or kept, and the session is closed.

    Raises `UnavailableError` with the sentence to report if data was kept instead of saved.
    """
    with session:
        namespace = session.namespace()  # now, since later no server may answer
        yield
        failure = session.vfs.ending.save_all(patience_s, time.sleep)
        if failure is None:
            return
        sentence = keep(session, namespace, mountpoint, failure)
        session.vfs.ending.abandon()
        try:
            session.close()
        except DfsError as error:
            log.debug("%s: %s", mountpoint, error)
    raise UnavailableError(sentence)


def keep(session: Session, namespace: Namespace, mountpoint: Path, failure: Exception) -> str:
    """Keep unsaved data. Returns the sentence about it."""
    files = session.vfs.ending.left_over()
    now_ns = time.time_ns()
    manifest = Manifest(
        namespace,
        os.fsencode(mountpoint),
        os.getpid(),
        now_ns,
        str(failure),
        (),
    )
    why = []
    for folder in state_folders.candidates():
        try:
            state_folders.ensure_own(folder)
            return told(kept_folders.keep(folder / kept_folders.FOLDER, name_of(manifest), manifest, files))
        except OSError as error:
            why.append(f"{folder}: {error.strerror or error}")
    reasons = "; ".join(why)
    return f"{_count(files)} could not be saved ({failure}), nor kept here ({reasons}). Lost: {_names(files)}"


def name_of(manifest: Manifest) -> str:
    """The name of its folder: the time and the process."""
    return f"{datetime.fromtimestamp(manifest.ended_ns / 1e9, UTC):%Y%m%dT%H%M%SZ}-{manifest.pid}"


def told(kept: Kept) -> str:
    """One sentence about the kept data."""
    files = kept.manifest.files
    missing = sum(file.missing_bytes for file in files)
    lost = f" {human_size(missing)} of it did not fit on this machine's disk and is lost." if missing else ""
    return (
        f"{counted(len(files), 'file')} ({human_size(sum(file.size for file in files))}) could not be saved: "
        f"{kept.manifest.why.rstrip('.')}. Kept in {kept.folder} (names.txt lists them).{lost} "
        "'dfc recover' shows them, 'dfc recover --apply' writes them to the servers."
    )


def of_mount(mountpoint: Path, since_ns: int) -> list[Kept]:
    """The data kept by a mount at this mountpoint that ended after this moment."""
    return [
        one
        for one in kept_on_this_machine()[0]
        if one.manifest.mountpoint == os.fsencode(mountpoint) and one.manifest.ended_ns >= since_ns
    ]


def waiting(namespace: Namespace) -> str:
    """A sentence about data that earlier mounts of this namespace could not save; empty if there is none."""
    found = [one for one in kept_on_this_machine()[0] if one.manifest.namespace.is_same_as(namespace)]
    if not found:
        return ""
    count = sum(len(one.manifest.files) for one in found)
    return (
        f"an earlier mount could not save {counted(count, 'file')}, which this machine keeps: "
        "'dfc recover' shows them, 'dfc recover --apply' writes them to the servers"
    )


def _count(files: Sequence[LeftOver]) -> str:
    return f"{counted(len(files), 'file')} ({human_size(sum(file.size for file in files))})"


def _names(files: Sequence[LeftOver]) -> str:
    names = [f"/{printable(file.path)}" if file.path is not None else f"inode {file.ino}" for file in files]
    return ", ".join(names[:_NAMES_MAX]) + (f" and {len(names) - _NAMES_MAX} more" if len(names) > _NAMES_MAX else "")
