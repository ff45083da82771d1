# ruff: noqa: E501 (the rows of a table)
"""What is reported in each state of the servers and the data. The table is the one in docs/operations.md: each row is a
test, and both tables must agree."""

from __future__ import annotations

import re
from itertools import product
from typing import NamedTuple

import pytest
from support.servers import REPOSITORY

from dfsfuse.upkeep.health.copies import UNKNOWN, Copies, Knowledge
from dfsfuse.upkeep.health.servers import ANSWERING, LEVEL, TAKES_DATA, Server, State
from dfsfuse.upkeep.health.verdict import Verdict, verdict

OPERATIONS = REPOSITORY / "docs/operations.md"


class Row(NamedTuple):
    """A row of the table: the state of the servers (those that are not named are up), and what is known about the
    data."""

    servers: str
    data: str
    sentence: str
    code: int
    access: str
    may_fail: str


def row(line: str) -> Row:
    servers, data, sentence, code, access, may_fail = (cell.strip() for cell in line.strip().strip("|").split("|"))
    return Row(servers, data, sentence, int(code), access.strip("`"), may_fail)


TABLE = [
    row(line)
    for line in """
| all up | whole | All servers answer: reading and writing work, and any one server may fail. | 0 | `read-write` | any one |
| all up | degraded | All servers answer: reading and writing work. | 0 | `read-write` | DFS4 |
| all up | incomplete | All servers answer, but some files cannot be read; writing works. | 3 | `incomplete` | none |
| all up | unknown | All servers answer: writing works; whether all files can be read is not known. | 0 | `read-write` | none known |
| DFS2 filling | degraded | All servers answer: reading and writing work. | 0 | `read-write` | DFS2 or DFS4 |
| DFS2 behind | whole | All servers answer: reading and writing work. | 0 | `read-write` | DFS2 |
| DFS2 empty | degraded | All servers answer: reading and writing work. | 0 | `read-write` | DFS2 |
| DFS2 full | whole | All servers answer: reading and writing work. | 0 | `read-write` | DFS2 |
| DFS2 down | degraded | 3 of 4 servers answer: reading and writing work. | 0 | `read-write` | none |
| DFS2 down | incomplete | 3 of 4 servers answer, but some files cannot be read; writing works. | 3 | `incomplete` | none |
| DFS2 down | unknown | 3 of 4 servers answer: writing works; whether all files can be read is not known. | 0 | `read-write` | none known |
| DFS2 down, DFS3 full | degraded | 3 of 4 servers answer, but only two have room for data, and writing needs three: files can be deleted, not written; all files can be read. | 9 | `read-only` | none |
| DFS2 down, DFS3 empty | degraded | 3 of 4 servers answer, but only two are up to date, and writing needs three: nothing can be written; all files can be read. | 7 | `read-only` | none |
| DFS2 down, DFS3 empty | incomplete | 3 of 4 servers answer, but only two are up to date, and writing needs three: nothing can be written; some files cannot be read. | 3 | `incomplete` | none |
| DFS2 full, DFS3 full | whole | All servers answer, but only two have room for data, and writing needs three: files can be deleted, not written; all files can be read. | 9 | `read-only` | none |
| DFS1 full, DFS2 full, DFS3 down, DFS4 empty | incomplete | 3 of 4 servers answer, but only two are up to date, and writing needs three: nothing can be written; some files cannot be read. | 3 | `incomplete` | none |
| DFS1 full, DFS2 full, DFS3 empty | unknown | All servers answer, but only one has room for data, and writing needs three: files can be deleted, not written. | 9 | `read-only` | none known |
| DFS2 empty, DFS3 empty | incomplete | All servers answer, but only two are up to date, and writing needs three: nothing can be written; some files cannot be read. | 3 | `incomplete` | none |
| DFS1 down, DFS3 down | degraded | 2 of 4 servers answer, and writing needs three: nothing can be written; all files can be read. | 7 | `read-only` | none |
| DFS1 down, DFS2 down | incomplete | 2 of 4 servers answer, and writing needs three: nothing can be written; some files cannot be read. | 3 | `incomplete` | none |
| DFS1 down, DFS2 down | unknown | 2 of 4 servers answer, and writing needs three: nothing can be written; files that need the others cannot be read. | 7 | `read-only` | none known |
| DFS1 down, DFS2 down, DFS3 down | incomplete | 1 of 4 servers answers, and writing needs three: nothing can be written; some files cannot be read. | 3 | `incomplete` | none |
| all down | unknown | No server answers. | 6 | `none` | none known |
| DFS2 refused | unknown | DFS2 refuses the user or password: nothing is read or written until that is corrected. | 4 | `refused` | none known |
| DFS2 refused, DFS3 down | unknown | DFS2 refuses the user or password: nothing is read or written until that is corrected. | 4 | `refused` | none known |
| DFS1 refused, DFS2 refused, DFS3 wrong | unknown | DFS1 and DFS2 refuse the user or password: nothing is read or written until that is corrected. | 4 | `refused` | none known |
| DFS3 wrong | unknown | What answers for DFS3 is another server: nothing is read or written until that is corrected. | 5 | `refused` | none known |
""".strip().splitlines()
]


def servers_of(text: str) -> dict[int, Server]:
    states = dict.fromkeys(range(1, 5), State.UP)
    for word in text.split(", "):
        name, state = word.split()
        found = State(state)
        states.update(dict.fromkeys(states, found) if name == "all" else {int(name[-1]): found})
    return {id: Server(f"DFS{id}", state) for id, state in states.items()}


def known(text: str, servers: dict[int, Server]) -> Knowledge:
    """What is known about the data in this state. If degraded, DFS1, DFS2 and DFS3 have the only copies of something,
    except those of them that lack copies or do not answer."""
    copies = Copies(text)
    if copies is Copies.UNKNOWN:
        return UNKNOWN
    if copies is Copies.WHOLE:
        return Knowledge(copies, files=9)
    full = {id for id in (1, 2, 3) if servers[id].state in (State.UP, State.FULL)}
    if copies is Copies.DEGRADED and all(server.state is State.UP for server in servers.values()):
        full = {1, 2, 3}
    return Knowledge(copies, files=9, degraded=3, needed=frozenset(full))


def judged(line: Row) -> Verdict:
    servers = servers_of(line.servers)
    return verdict(servers, known(line.data, servers))


@pytest.mark.parametrize("line", TABLE, ids=lambda line: f"{line.servers}: {line.data}")
def test_each_row(line: Row) -> None:
    found = judged(line)
    may_fail = " or ".join(f"DFS{id}" for id in sorted(found.may_fail))
    expected = "" if line.may_fail.startswith("none") else line.may_fail
    assert (found.sentence, found.exit_code, found.access) == (line.sentence, line.code, line.access)
    assert ("any one" if found.any_one_may_fail else may_fail) == expected


def test_the_documents_table_is_this_one() -> None:
    text = OPERATIONS.read_text()
    begin = re.search(r"^\| servers \| data \| .*\n\|[-|]+\|\n", text, re.MULTILINE)
    assert begin is not None
    lines = text[begin.end() :].split("\n\n", 1)[0].splitlines()
    assert [row(line) for line in lines] == TABLE


STATES = [*State]


@pytest.mark.parametrize("copies", [*Copies])
def test_nothing_is_promised_in_any_state_that_does_not_bear_it(copies: Copies) -> None:
    """In all 9^4 states, each statement of the sentence is compared with what it requires."""
    for states in product(STATES, repeat=4):
        servers = {id: Server(f"DFS{id}", state) for id, state in enumerate(states, start=1)}
        found = verdict(servers, Knowledge(copies, files=1))
        answering = sum(state in ANSWERING for state in states)
        refused = any(state in (State.REFUSED, State.WRONG) for state in states)
        promised = "any one server may fail" in found.sentence
        assert promised == found.any_one_may_fail
        assert promised == (copies is Copies.WHOLE and set(states) == {State.UP})
        if copies is Copies.UNKNOWN:
            assert "reading" not in found.sentence
        if found.writing:
            assert sum(state in TAKES_DATA for state in states) >= 3 and not refused
        assert (found.access == "read-write") == (found.writing and found.reading != "part")
        assert (found.exit_code == 0) == (found.access == "read-write")
        assert (found.exit_code == 6) == (answering == 0 and not refused)
        assert (found.exit_code in (4, 5)) == refused
        if copies is Copies.INCOMPLETE and answering and not refused:
            assert found.exit_code == 3
            assert "some files cannot be read" in found.sentence
        for id in found.may_fail:
            left = [servers[other].state for other in servers if other != id]
            assert sum(state in LEVEL for state in left) >= 3


@pytest.mark.parametrize("knowledge", [Knowledge(Copies.WHOLE, age_s=1.0), Knowledge(Copies.WHOLE, all_counted=False)])
def test_what_was_not_counted_just_now_promises_nothing_for_a_failure(knowledge: Knowledge) -> None:
    servers = servers_of("all up")
    assert "may fail" not in verdict(servers, knowledge).sentence
    assert not verdict(servers, knowledge).may_fail


def test_what_was_counted_earlier_is_never_said_to_be_so_now() -> None:
    """It decides the exit code all the same: a false alarm is better than a missing one."""
    found = verdict(servers_of("all up"), Knowledge(Copies.INCOMPLETE, files=9, incomplete=1, age_s=60.0))
    assert found.sentence == (
        "All servers answer, but some files could not be read when that was last counted; writing works."
    )
    assert (found.exit_code, found.access) == (3, "incomplete")
    found = verdict(servers_of("DFS1 down, DFS3 down"), Knowledge(Copies.DEGRADED, files=9, age_s=60.0))
    assert (found.reading, found.exit_code) == ("unknown", 7)
    assert "can be read" not in found.sentence.replace("cannot", "")


def test_of_what_was_not_counted_it_is_not_said_that_it_can_be_read() -> None:
    """The count found data with one copy and then ran out of time: what it did not reach may have none."""
    some = Knowledge(Copies.DEGRADED, files=9, degraded=3, needed=frozenset({2}), all_counted=False)
    found = verdict(servers_of("DFS1 down, DFS3 down"), some)
    assert (found.reading, found.exit_code) == ("unknown", 7)
    assert "can be read" not in found.sentence
    found = verdict(servers_of("DFS1 down"), some)
    assert found.sentence == "3 of 4 servers answer: writing works; whether all files can be read is not known."
