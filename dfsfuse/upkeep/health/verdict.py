"""The single source of truth about health: turns server states and what is known about the copies into sentences, an
exit code, and the fields for programs. Pure. The table in docs/operations.md is a test of this module.

Rules:
- A sentence is used only if it is true now. What is not known is called unknown.
- "Any one server may fail" requires all of this: all four servers have all of the log, so that three are a quorum
  without any one of them; three have room for data; and all data was counted just now and has its two copies on them.
- The most serious problem decides the exit code: no answer, a server that refuses, data that no server has, no writing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from dfs_server.protocol.limits import QUORUM, SERVERS
from dfsfuse.errors import (
    AuthenticationError,
    IncompleteError,
    NoSpaceError,
    ReadOnlyError,
    UnavailableError,
    WrongServerError,
)
from dfsfuse.upkeep.health.copies import Copies, Knowledge
from dfsfuse.upkeep.health.servers import ANSWERING, LEVEL, TAKES_BATCHES, TAKES_DATA, Server, State, listed

NUMBERS: Final = ("no", "one", "two", "three", "four")


@dataclass(frozen=True)
class Verdict:
    """The overall state."""

    sentence: str
    """What can be done now."""
    exit_code: int
    access: str
    """`read-write`, `read-only`, `incomplete` (some files cannot be read), `refused` or `none`."""
    writing: bool
    """Whether files can be written now."""
    reading: str
    """Whether `all`, `part` or `none` of the files can be read now, or `unknown`."""
    may_fail: frozenset[int]
    """Ids of the servers of which any one may fail: everything can be read and written without it."""

    @property
    def any_one_may_fail(self) -> bool:
        """Return whether that is true of all four."""
        return len(self.may_fail) == SERVERS


def verdict(servers: Mapping[int, Server], copies: Knowledge) -> Verdict:
    """Return the verdict for these servers, by id."""
    answering = _in(servers, ANSWERING)
    refusing = _in(servers, {State.REFUSED})
    wrong = _in(servers, {State.WRONG})
    if refusing or wrong:
        return _refused(servers, refusing, wrong)
    if not answering:
        return Verdict("No server answers.", UnavailableError.exit_code, "none", False, "none", frozenset())
    writing = min(len(answering), len(_in(servers, TAKES_DATA))) >= QUORUM
    reading = _READING[copies.copies]
    if reading == "all" and (copies.age_s is not None or not copies.all_counted):
        reading = "unknown"
    may_fail = _may_fail(servers, copies) if writing else frozenset()
    code, access = _code_and_access(servers, reading, writing)
    unreadable = "some files cannot be read"
    if copies.age_s is not None:
        unreadable = "some files could not be read when that was last counted"
    sentence = _sentence(servers, reading, writing, may_fail, unreadable)
    return Verdict(sentence, code, access, writing, reading, may_fail)


_READING: Final = {
    Copies.WHOLE: "all",
    Copies.DEGRADED: "all",
    Copies.INCOMPLETE: "part",
    Copies.UNKNOWN: "unknown",
}


def of_another_namespace() -> Verdict:
    """Return the verdict if the config lists other servers than the namespace has, or in another order."""
    return Verdict(
        "The config does not list the servers as this namespace has them: nothing is read or written until that is "
        "corrected.",
        WrongServerError.exit_code,
        "refused",
        False,
        "none",
        frozenset(),
    )


def _in(servers: Mapping[int, Server], states: frozenset[State] | set[State]) -> list[int]:
    return [id for id in sorted(servers) if servers[id].state in states]


def _may_fail(servers: Mapping[int, Server], copies: Knowledge) -> frozenset[int]:
    """Return the servers without which everything keeps working. Known only if all data was counted now."""
    if copies.copies not in (Copies.WHOLE, Copies.DEGRADED) or copies.age_s is not None or not copies.all_counted:
        return frozenset()
    if copies.copies is Copies.DEGRADED and not copies.needed:
        return frozenset()
    if copies.copies is Copies.WHOLE and _in(servers, {State.FILLING}):  # something is still being transferred
        return frozenset()
    level, takes = set(_in(servers, LEVEL)), set(_in(servers, TAKES_DATA))
    return frozenset(
        id
        for id in _in(servers, ANSWERING)
        if id not in copies.needed and len(level - {id}) >= QUORUM and len(takes - {id}) >= QUORUM
    )


def _code_and_access(servers: Mapping[int, Server], reading: str, writing: bool) -> tuple[int, str]:
    if reading == "part":
        return IncompleteError.exit_code, "incomplete"
    if writing:
        return 0, "read-write"
    if len(_in(servers, TAKES_BATCHES)) >= QUORUM:
        return NoSpaceError.exit_code, "read-only"
    return ReadOnlyError.exit_code, "read-only"


def _refused(servers: Mapping[int, Server], refusing: list[int], wrong: list[int]) -> Verdict:
    names = _names(servers, refusing or wrong)
    if refusing:
        verb = "refuses" if len(refusing) == 1 else "refuse"
        sentence = f"{names} {verb} the user or password: nothing is read or written until that is corrected."
        code = AuthenticationError.exit_code
    else:
        sentence = f"What answers for {names} is another server: nothing is read or written until that is corrected."
        code = WrongServerError.exit_code
    return Verdict(sentence, code, "refused", False, "none", frozenset())


def _sentence(
    servers: Mapping[int, Server], reading: str, writing: bool, may_fail: frozenset[int], unreadable: str
) -> str:
    answering = len(_in(servers, ANSWERING))
    who = "All servers answer" if answering == SERVERS else f"{answering} of 4 servers answer{'s' * (answering == 1)}"
    part = reading == "part"
    if writing:
        if part:
            return f"{who}, but {unreadable}; writing works."
        if reading == "unknown":
            return f"{who}: writing works; whether all files can be read is not known."
        also = ", and any one server may fail" if len(may_fail) == SERVERS else ""
        return f"{who}: reading and writing work{also}."
    rest = {"part": f"; {unreadable}", "all": "; all files can be read"}.get(reading, "")
    if len(_in(servers, TAKES_BATCHES)) >= QUORUM:
        takers = _so_many(len(_in(servers, TAKES_DATA)), "has", "have")
        return f"{who}, but {takers} room for data, and writing needs three: files can be deleted, not written{rest}."
    if answering >= QUORUM:
        ready = _so_many(len(_in(servers, TAKES_BATCHES)), "is", "are")
        return f"{who}, but {ready} up to date, and writing needs three: nothing can be written{rest}."
    rest = rest or "; files that need the others cannot be read"
    return f"{who}, and writing needs three: nothing can be written{rest}."


def _so_many(count: int, one: str, many: str) -> str:
    return f"none {one}" if not count else f"only {NUMBERS[count]} {one if count == 1 else many}"


def _names(servers: Mapping[int, Server], ids: list[int]) -> str:
    return listed([servers[id].name for id in ids])
