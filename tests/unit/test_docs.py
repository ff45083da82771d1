"""The documents are true: their examples are what the code produces, and everything they name exists.

This checks worked examples in bytes, timeouts, make targets, paths of files, links with their anchors, and the tests
named in the tables of faults and of conformance. It does not check prose.
"""

from __future__ import annotations

import ast
import importlib
import re
import stat
from pathlib import Path

import msgspec
import pytest

from dfs_server.pieces.file import PieceHeader
from dfs_server.protocol import batches, frames, messages, pieces
from dfs_server.protocol.ballots import ZERO, Ballot
from dfs_server.protocol.batches import Batch
from dfs_server.protocol.messages import Accept, Done, GetPosition, Message, Position, PutPiece
from dfs_server.protocol.status import Status
from dfsfuse.data import extents
from dfsfuse.data.extents import Segment
from dfsfuse.data.placement import ring
from dfsfuse.namespace.ops import inodes
from dfsfuse.namespace.records import inode as records

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
WIRE = ROOT / "docs/wire-protocol.md"

PAGE = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


# ------------------------------------------------------------------ the wire protocol


def frame(request_id: int, message: Message, payload: bytes = b"") -> bytes:
    body = messages.encode(message)
    return frames.pack_header(request_id, len(body), len(payload)) + body + payload


BATCH = batches.encode(Batch(1, b"", b"client-1", 1, 1_700_000_000_000_000_000, puts=((b"k", b"v"),)))
EXAMPLES = {
    "GetPosition": frame(3, GetPosition()),
    "Position": frame(3, Position(0, b"", ZERO)),
    "PutPiece": frame(4, PutPiece(bytes(range(16)), 1, pieces.block_digests(b"hello")), b"hello"),
    "Done": frame(4, Done()),
    "Accept": frame(8, Accept(Ballot(1, b"client-1"), 1, BATCH)),
}


def test_the_worked_examples_of_the_wire_protocol() -> None:
    shown = {}
    for name, block in re.findall(r"<!-- example: (\w+) -->\n```\n(.*?)```", WIRE.read_text(), re.DOTALL):
        lines = [re.match(r"(?:[0-9a-f]{2}(?: |$))+", line) for line in block.splitlines()]
        assert all(lines), f"{name}: this line does not begin with bytes"
        shown[name] = bytes.fromhex("".join(line.group() for line in lines if line))
    assert shown == EXAMPLES
    assert batches.digest(BATCH).hex() in WIRE.read_text()


def test_every_message_and_status_is_in_the_wire_protocol() -> None:
    text = WIRE.read_text()
    for kind in Message.__subclasses__():
        assert f"`{kind.__name__}`" in text, kind
    for status in Status:
        assert f"| {status.value} | `{status.name}` |" in text, status


# ------------------------------------------------------------------ the disk format


def region_bytes(length: int) -> int:
    segment = Segment(bytes(16), length, ring(0), (bytes(32),) * 4)
    return len(extents.encode(extents.overlay(extents.EMPTY, segment, [(0, length, 0)])[0]))


def inode_bytes(size: int) -> int:
    now_ns = 1_700_000_000_000_000_000
    inode = inodes.new(stat.S_IFREG | 0o644, 1000, 1000, now_ns)
    return len(records.encode(msgspec.structs.replace(inode, size=size, stored_bytes=size, rotation=1)))


def test_the_byte_counts_of_the_disk_format() -> None:
    text = (ROOT / "docs/disk-format.md").read_text()
    for length in (1 << 20, 1 << 19):
        header = PieceHeader(bytes(16), 1, length, bytes(32 * pieces.block_count(length)))
        assert f" of {header.data_offset + length:,} " in text
    for length in (1, 4096, 4 << 20):
        assert f"region record ({region_bytes(length)}), inode ({inode_bytes(length)}), entry (6)" in text
    assert f"three region records ({region_bytes(4 << 20)} each), inode ({inode_bytes(10 << 20)})" in text
    assert len(records.encode(records.Entry(records.FORMAT, 2, stat.S_IFREG))) == 6


# ------------------------------------------------------------------ names in the documents exist


@PAGE
def test_links_lead_somewhere(page: Path) -> None:
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)", page.read_text()):
        path = (page.parent / target).resolve() if target else page
        assert path.exists(), f"{page.name} links to {target}"
        assert not anchor or anchor in anchors(path), f"{page.name} links to {target}#{anchor}"


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@PAGE
def test_paths_of_files_exist(page: Path) -> None:
    text = page.read_text()
    for path in re.findall(r"`((?:dfs_server|dfsfuse|tests|conf|docs|\.ci)/[\w./-]*)`", text):
        assert (ROOT / path).exists(), f"{page.name} names {path}"
    for module in re.findall(r"`(support\.\w+)`", text):
        assert (ROOT / "tests" / f"{module.replace('.', '/')}.py").exists(), f"{page.name} names {module}"


@PAGE
def test_make_targets_exist(page: Path) -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = re.findall(r"(?:^|`)make ([a-z][a-z-]*)(?: ([a-z]+)$)?", page.read_text(), re.MULTILINE)
    assert {target for pair in named for target in pair if target} <= targets


def test_every_target_is_described_where_contributors_look() -> None:
    described = set(re.findall(r"`make ([\w-]+)", (ROOT / "CONTRIBUTING.md").read_text()))
    assert described >= set(re.findall(r"^([\w-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))


def functions_in(path: Path) -> set[str]:
    return {node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)}


def rows_of_faults() -> list[str]:
    section = (ROOT / "ARCHITECTURE.md").read_text().partition("## Faults")[2].partition("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| ")]
    return rows[1:]


@pytest.mark.parametrize("row", rows_of_faults(), ids=lambda row: row.split("|")[1].strip())
def test_every_fault_has_a_test(row: str) -> None:
    named = re.findall(r"`([\w/]+\.py)::(\w+)`", row)
    assert named
    for file, test in named:
        assert test in functions_in(ROOT / "tests" / file), f"there is no {file}::{test}"


def rows_of_conformance() -> list[str]:
    section = (ROOT / "docs/conformance.md").read_text().partition("## What is tested")[2].partition("\n## ")[0]
    return [line for line in section.splitlines() if line.startswith("| ")][1:]


@pytest.mark.parametrize("row", rows_of_conformance(), ids=lambda row: row.split("|")[1].strip()[:40])
def test_every_line_of_conformance_has_a_test(row: str) -> None:
    """A word that contains `_` and is not a file is a case of tests/conformance."""
    cases = set[str]().union(*(functions_in(file) for file in (ROOT / "tests/conformance").glob("cases_*.py")))
    named = re.findall(r"`([\w/.:]+)`", row.split("|")[2])
    assert named
    for name in named:
        file, _, test = name.partition("::")
        if "/" in file or file == "simulation":
            assert (ROOT / "tests" / file).exists(), file
            assert not test or test in functions_in(ROOT / "tests" / file), f"there is no {name}"
        elif not file.isupper():
            assert file in cases, f"there is no case {file}"


def test_names_of_code_in_the_walks_exist() -> None:
    """`Class.method` in ARCHITECTURE.md is a method of a class of that name."""
    known: set[str] = set()
    for file in [*ROOT.glob("dfs_server/**/*.py"), *ROOT.glob("dfsfuse/**/*.py")]:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ClassDef):
                known |= {f"{node.name}.{item.name}" for item in node.body if isinstance(item, ast.FunctionDef)}
    named = set(re.findall(r"`([A-Z]\w+\.[a-z_]+)`", (ROOT / "ARCHITECTURE.md").read_text()))
    assert named
    assert named <= known | {"README.md"}


# ------------------------------------------------------------------ numbers and words


def test_timeouts_are_those_of_the_code() -> None:
    section = (ROOT / "docs/operations.md").read_text().partition("## Timeouts")[2]
    rows = re.findall(r"^\| .* \| ([\d.]+) s \| `(\w+)` in `([\w/]+)\.py` \|$", section, re.MULTILINE)
    assert len(rows) == sum(line.startswith("| ") for line in section.splitlines()) - 1
    for seconds, name, file in rows:
        assert getattr(importlib.import_module(file.replace("/", ".")), name) == float(seconds), f"{name} in {file}.py"


def test_decisions_are_numbered_and_listed() -> None:
    folder = ROOT / "docs/decisions"
    found = sorted(page.name for page in folder.glob("[0-9]*.md"))
    assert len({name[:4] for name in found}) == len(found), "each number is used once"
    listed = re.findall(r"^\| \[(\d{4})\]\((.*?)\) \| (.*) \|$", (folder / "README.md").read_text(), re.MULTILINE)
    assert [name for _, name, _ in listed] == found
    for number, name, title in listed:
        assert (folder / name).read_text().startswith(f"# {number}: {title}\n")


def test_architecture_is_short() -> None:
    assert len((ROOT / "ARCHITECTURE.md").read_text().splitlines()) <= 250
