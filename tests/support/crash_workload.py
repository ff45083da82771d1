"""What a server does to its disk, step by step, and what must be there whenever it stops in between.

Run as a program, with `crash_points.c` preloaded:

    python crash_workload.py trace ROOT TRACE       all steps, with every change traced
    python crash_workload.py kill FOLDER POINT...   for each point: all steps in a child that is killed there, in a
                                                    folder of its own; then `check` on what is left
    python crash_workload.py cut FOLDER ROOT TRACE LOST LEFT_OUT
                                                    `check` on all that a power cut may leave

It uses a namespace as a server's session does, below the socket. `ROOT/steps.said` has a line for each finished step:
whatever is finished counts as acknowledged.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

from support.disk_model import Change, ForgetfulDisk, Lost, read_trace, write_out

from dfs_server.namespace import Namespace
from dfs_server.namespaces import Namespaces
from dfs_server.pieces.open_piece import OpenPiece
from dfs_server.protocol import batches
from dfs_server.protocol.ballots import Ballot
from dfs_server.protocol.batches import Batch, InlinePiece
from dfs_server.protocol.messages import (
    Accept,
    Chosen,
    DropPieces,
    Error,
    Findings,
    GetBatches,
    GetFindings,
    GetPiece,
    GetPosition,
    GetStatus,
    ListPieces,
    PieceList,
    Position,
    Promise,
    Promised,
    PutPiece,
    PutPieces,
    ReadKeys,
    ServerStatus,
    Values,
)
from dfs_server.protocol.pieces import block_digests
from dfs_server.protocol.status import Status
from dfs_server.scrub.scrubber import Rest
from dfs_server.store import log_table, overlay, redo_log
from dfs_server.wire.failures import RequestFailedError

SAID = "steps.said"
BALLOTS = (Ballot(1, b"client01"), Ballot(2, b"client01"))
A, B, C, D, S, T, NEW = (bytes([number]) * 16 for number in (0xA0, 0xB0, 0xC0, 0xD0, 0x50, 0x51, 0x77))
LARGE, OTHER = b"large piece " * 6000, b"replacement " * 6000
DONT_REST: Rest = lambda seconds: False  # noqa: E731


def open_namespaces(root: Path) -> Namespaces:
    return Namespaces(root, "DFS1", grace_s=0.0, reserve_bytes=0)


def _batches() -> list[bytes]:
    """Four batches: small pieces and keys; more keys; a key and a segment are deleted; keys and pieces again."""
    encoded: list[bytes] = []
    previous = b""
    for contents in (
        {"puts": ((b"k1", b"one"), (b"k2", b"two")), "pieces": (InlinePiece(S, 1, ("DFS1",), b"small" * 50),)},
        {"puts": ((b"k3", b"three"),), "pieces": (InlinePiece(S, 2, ("DFS2",), b"elsewhere"),)},
        {"deletes": (b"k1",), "drops": (A,)},
        {"puts": ((b"k1", b"again"), (b"k2", b"other"))},
        {"deletes": (b"k3",), "pieces": (InlinePiece(T, 1, ("DFS1",), b"late" * 50),)},
        {"puts": ((b"k3", b"last"),)},
    ):
        batch = Batch(batches.FORMAT, previous, b"client01", len(encoded) + 1, 0, **contents)  # type: ignore[arg-type]
        encoded.append(batches.encode(batch))
        previous = batches.digest(encoded[-1])
    return encoded


BATCHES = _batches()
MAPS: tuple[dict[bytes, bytes], ...] = (
    {},
    {b"k1": b"one", b"k2": b"two"},
    {b"k1": b"one", b"k2": b"two", b"k3": b"three"},
    {b"k2": b"two", b"k3": b"three"},
    {b"k1": b"again", b"k2": b"other", b"k3": b"three"},
    {b"k1": b"again", b"k2": b"other"},
    {b"k1": b"again", b"k2": b"other", b"k3": b"last"},
)
SLOTS = range(1, len(BATCHES) + 1)


def _put(segment: bytes, data: bytes, *, replace: bool = False) -> Callable[[Namespace], None]:
    def step(namespace: Namespace) -> None:
        request = PutPiece(segment, 1, block_digests(data), replace=replace)
        with namespace.put_piece(request, len(data)) as upload:
            upload.write(data)
            upload.commit()

    return step


def _accept(slot: int, ballot: Ballot = BALLOTS[0]) -> Callable[[Namespace], None]:
    return lambda namespace: _answer(namespace, Accept(ballot, slot, BATCHES[slot - 1]))


def _flush(namespace: Namespace) -> None:
    """Flush, as when nothing has come between two checks."""
    namespace.flush_if_idle()
    namespace.flush_if_idle()


def _answer(namespace: Namespace, request: object) -> None:
    namespace.answer(request)  # type: ignore[arg-type]


def _rot(namespace: Namespace) -> None:
    """Corrupt a byte, and let the scrub find it."""
    path = namespace.holdings.files._path(D, 1)
    with path.open("r+b") as file:
        file.seek(5000)
        file.write(b"?")
    namespace.scrub(0.0, 1e12, DONT_REST)


STEPS: dict[str, Callable[[Namespace], None]] = {
    "start": lambda namespace: None,
    "put A": _put(A, LARGE),
    "promise 1": lambda namespace: _answer(namespace, Promise(BALLOTS[0])),
    "accept 1": _accept(1),
    "accept 2": _accept(2),
    "put B": lambda namespace: _answer(namespace, PutPieces(((B, 1, b"one"), (B, 2, b"two" * 1000)))),
    "replace A": _put(A, OTHER, replace=True),
    "accept 3": _accept(3),
    "chosen 3": lambda namespace: _answer(namespace, Chosen(3, batches.digest(BATCHES[2]))),
    "delete A": lambda namespace: _answer_nothing(namespace.delete_dropped()),
    "put C": _put(C, LARGE),
    "drop C": lambda namespace: _answer(namespace, DropPieces(((C, 1), (B, 1)), 0)),
    "put C again": _put(C, LARGE),
    "delete B": lambda namespace: _answer_nothing(namespace.delete_dropped()),
    "put D": _put(D, LARGE),
    "quarantine D": _rot,
    "promise 2": lambda namespace: _answer(namespace, Promise(BALLOTS[1])),
    "accept 4": _accept(4, BALLOTS[1]),
    "accept 5": _accept(5, BALLOTS[1]),
    "flush": _flush,
    "accept 6": _accept(6, BALLOTS[1]),
}
NAMES = list(STEPS)


def _answer_nothing(_: object) -> None:
    """Ignore the counts."""


def work(root: Path) -> None:
    """Do all steps and record each when it is finished. With such small limits, batches are flushed and trimmed on the
    way."""
    overlay.MAX_BATCHES, log_table.KEEP_BATCHES, log_table.TRIM_STEP = 2, 1, 1  # type: ignore[misc]
    redo_log.GROW_BYTES = 4096  # type: ignore[misc]
    said = os.open(root / SAID, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    with closing(open_namespaces(root)) as namespaces:
        for name, step in STEPS.items():
            step(namespaces.of("alice"))
            os.write(said, f"{name}\n".encode())
        kept = namespaces.of("alice").answer(GetBatches(0))
        assert isinstance(kept, Error), "the log must be trimmed on the way"
    os.close(said)


# ------------------------------------------------------------------ what must be there


def check(root: Path, done: int) -> None:
    """Start a server on what is left, and check it. The first `done` steps were acknowledged, and the next may have
    been in progress. Raises AssertionError if something is missing or incomplete."""
    with closing(open_namespaces(root)) as namespaces:
        namespace = namespaces.of("alice")
        _check_log(namespace, done)
        _check_pieces(namespace, done)
        assert list((root / "alice" / "pieces" / "tmp").iterdir()) == []
        before = _findings(namespace)
        assert namespace.scrub(0.0, 1e12, DONT_REST)
        after = _findings(namespace)
        assert after.database == ""
        assert {piece[:2] for piece in after.quarantined} <= {piece[:2] for piece in before.quarantined} | {(D, 1)}
        _check_totals(namespace)
        _put(NEW, LARGE)(namespace)
        assert content(namespace, NEW) == LARGE
        # The same client: for two seconds after its start a server acts as if the last writer had the lease.
        assert isinstance(namespace.answer(Promise(Ballot(9, b"client01"))), Promised)


def _done(step: str, done: int) -> bool:
    return NAMES.index(step) < done


def _begun(step: str, done: int) -> bool:
    return NAMES.index(step) <= done


def _check_log(namespace: Namespace, done: int) -> None:
    position = namespace.answer(GetPosition())
    assert isinstance(position, Position)
    promised = max((ballot.round for ballot in BALLOTS if _done(f"promise {ballot.round}", done)), default=0)
    assert position.promised.round in (promised, promised + 1)
    accepted = position.applied + bool(position.tail_digest)
    assert sum(_done(f"accept {slot}", done) for slot in SLOTS) <= accepted
    assert accepted <= sum(_begun(f"accept {slot}", done) for slot in SLOTS)
    assert accepted - position.applied <= 1
    expected_digest = batches.digest(BATCHES[position.applied - 1]) if position.applied else b""
    assert position.digest == expected_digest
    if position.tail_digest:
        assert position.tail_digest == batches.digest(BATCHES[position.applied])
    keys = (b"k1", b"k2", b"k3")
    values = namespace.answer(ReadKeys(position.applied, position.digest, keys))
    assert isinstance(values, Values)
    found = {key: value for key, value in zip(keys, values.values, strict=True) if value is not None}
    assert found == MAPS[position.applied]
    assert accepted < 1 or content(namespace, S) == b"small" * 50
    assert accepted < 5 or content(namespace, T) == b"late" * 50


def _check_pieces(namespace: Namespace, done: int) -> None:
    if not _begun("delete A", done):
        _check_content(namespace, A, "put A", "replace A", done)
    if not _begun("drop C", done):
        _check_small(namespace, done)
    elif _done("put B", done):
        assert content(namespace, B, 2) == b"two" * 1000
    assert content(namespace, C) in ({LARGE} if _done("put C", done) else {LARGE, None})
    if _done("put C again", done):
        listed = namespace.answer(ListPieces())
        assert isinstance(listed, PieceList)
        assert (C, 1) in {piece[:2] for piece in listed.pieces}
    if _done("put D", done):
        quarantined = {piece[:2] for piece in _findings(namespace).quarantined}
        assert (D, 1) in quarantined or namespace.holdings.files.held(D, 1) is not None
        assert not _done("quarantine D", done) or (D, 1) in quarantined


def _check_content(namespace: Namespace, segment: bytes, put: str, replaced: str, done: int) -> None:
    allowed: set[bytes | None] = {LARGE} if _done(put, done) else {LARGE, None}
    if _begun(replaced, done):
        allowed = {OTHER} if _done(replaced, done) else {OTHER, *allowed}
    assert content(namespace, segment) in allowed


def _check_small(namespace: Namespace, done: int) -> None:
    found = (content(namespace, B, 1), content(namespace, B, 2))
    both = (b"one", b"two" * 1000)
    assert found == both if _done("put B", done) else found in (both, (None, None))


def _check_totals(namespace: Namespace) -> None:
    status, listed = namespace.answer(GetStatus()), namespace.answer(ListPieces())
    assert isinstance(status, ServerStatus)
    assert isinstance(listed, PieceList)
    dropped = {(C, 1), (B, 1), (A, 1)}
    wanted = [piece for piece in listed.pieces if piece[:2] not in dropped]
    assert 0 <= status.piece_count - len(wanted) <= len(dropped)


def _findings(namespace: Namespace) -> Findings:
    found = namespace.answer(GetFindings())
    assert isinstance(found, Findings)
    return found


def content(namespace: Namespace, segment: bytes, number: int = 1) -> bytes | None:
    """Return the whole piece as a client gets it, checked against its digests; None if it is not here."""
    try:
        found = namespace.get_piece(GetPiece(segment, number))
    except RequestFailedError as error:
        assert error.status is Status.NOT_FOUND, error
        return None
    if isinstance(found, OpenPiece):
        with found:
            data = found.read(0, found.length)
    else:
        data = found.data
    assert block_digests(data) == found.digests, f"{segment.hex()}.{number} does not have its digests"
    return data


# ------------------------------------------------------------------ as a process


def _trace(root: Path, trace: Path) -> None:
    layer = ctypes.CDLL(None)
    descriptor = os.open(trace, os.O_WRONLY | os.O_CREAT, 0o600)
    layer.watch(os.fsencode(root), descriptor)
    work(root)
    layer.watch(b"", -1)
    os.close(descriptor)


def _kill(folder: Path, points: list[int]) -> int:
    """Kill a child at each point, check what is left, and return how many were killed where they should be."""
    layer = ctypes.CDLL(None)
    killed = 0
    for point in points:
        root = folder / f"killed-at-{point}"
        root.mkdir()
        child = os.fork()
        if child == 0:
            with contextlib.suppress(BaseException):
                layer.watch(os.fsencode(root), -1)
                layer.die_at(ctypes.c_long(point))
                work(root)
                os._exit(0)
            traceback.print_exc()
            os._exit(1)
        _, status = os.waitpid(child, 0)
        killed += os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        said = root / SAID
        done = len(said.read_text().splitlines()) if said.exists() else 0
        _check_or_exit(root, done, f"killed at change {point}")
    return killed


LEFT_OUT: dict[str, Callable[[str], bool]] = {
    "none": lambda path: False,
    "any": lambda path: True,
    "of a piece's file": lambda path: "/pieces/tmp/" in path,
    "of a piece's folder": lambda path: "/pieces/" in path and "/tmp" not in path,
    "of SQLite's log": lambda path: path.endswith("-wal"),
    "of the redo log": lambda path: path.endswith(".redo"),
    "of the quarantine": lambda path: path.endswith("/quarantine"),
    "of the user's folder": lambda path: path in {".", "alice"},
}
"""Which calls of fsync are left out, by path."""


def _cuts(changes: list[Change], lost: Lost, left_out: str) -> Iterator[tuple[int, dict[str, bytes | None]]]:
    """Yield what may be left after a power cut at each change, and how many steps were acknowledged; each state
    once."""
    disk, done, seen = ForgetfulDisk(), 0, set()
    for change in changes:
        if change.is_said:
            done += change.op == "w"
        elif change.op != "f" or not LEFT_OUT[left_out](change.path):
            disk.change(change)
        if change.is_one_of_many or (left_out != "none" and not change.is_said):
            continue  # a missing fsync shows just after an acknowledgement
        state = disk.state(lost)
        fingerprint = hash((done, tuple(sorted(state.items(), key=lambda item: item[0]))))
        if fingerprint not in seen:
            seen.add(fingerprint)
            yield done, state


def _cut(folder: Path, changes: list[Change], lost: Lost, left_out: str) -> int:
    """Check all states that a power cut may leave, and return their number."""
    checked = 0
    for done, state in _cuts(changes, lost, left_out):
        root = folder / f"state-{checked}"
        write_out(state, root)
        _check_or_exit(root, done, f"power cut with {lost.name} lost")
        checked += 1
    return checked


def _check_or_exit(root: Path, done: int, what: str) -> None:
    """Run the check, and exit with a message if it fails."""
    try:
        check(root, done)
    except Exception:  # noqa: BLE001 - whatever a server may fail with
        traceback.print_exc()
        sys.exit(f"FOUND: {what}, after {done} steps, in {root}")
    shutil.rmtree(root)


def _main(mode: str, *arguments: str) -> None:
    match mode:
        case "trace":
            _trace(Path(arguments[0]), Path(arguments[1]))
        case "kill":
            print(_kill(Path(arguments[0]), [int(point) for point in arguments[1:]]))
        case "cut":
            folder, root, trace, lost, left_out = arguments
            print(_cut(Path(folder), read_trace(Path(trace), Path(root)), Lost[lost], left_out))


if __name__ == "__main__":
    _main(*sys.argv[1:])
