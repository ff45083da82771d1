"""`dfc verify --against`: the differences between a tree on the servers and a local one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from support.memory_dfc import Dfc


@pytest.fixture
def tree(dfc: Dfc) -> Path:
    """/tree is a copy of the local folder `tree`."""
    root = dfc.here / "tree"
    (root / "sub" / "deep").mkdir(parents=True)
    (root / "file").write_bytes(b"content")
    (root / "sub" / "file").write_bytes(bytes(5 << 20))
    (root / "link").symlink_to("sub/file")
    (root / "sub" / "deep").chmod(0o750)
    dfc.ok("put", "-r", "tree")
    return root


def test_the_same(dfc: Dfc, tree: Path) -> None:
    assert dfc.ok("verify", "--against", "tree", "/tree") == "/tree and tree are the same.\n"
    assert dfc.ok("verify", "--against", "tree/file", "/tree/file") == "/tree/file and tree/file are the same.\n"
    assert dfc.ok("verify", "--against", "tree", "tree", "--json") == "[]\n"


def replace_by(path: Path, make: Callable[[Path], object]) -> None:
    path.unlink()
    make(path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda tree: (tree / "file").write_bytes(b"cXntent"), "/tree/file: its contents differ from byte 1 on"),
        (
            lambda tree: (tree / "file").write_bytes(b"c"),
            "/tree/file: it has 7 bytes on the servers and 1 in the local",
        ),
        (lambda tree: (tree / "file").chmod(0o600), "/tree/file: its permissions are 644 on the servers and 600 in"),
        (
            lambda tree: (tree / "sub/deep").chmod(0o700),
            "/tree/sub/deep: its permissions are 750 on the servers and 700",
        ),
        (lambda tree: (tree / "new\n").touch(), "/tree/new\\n: it is only in the local folder"),
        (lambda tree: (tree / "file").unlink(), "/tree/file: it is only on the servers"),
        (lambda tree: replace_by(tree / "file", Path.mkdir), "/tree/file: it is a file on the servers and a folder in"),
        (
            lambda tree: replace_by(tree / "link", lambda link: link.symlink_to("x")),
            "/tree/link: it points to sub/file on the servers and to x in the local",
        ),
    ],
)
def test_what_differs_is_said_and_is_an_exit_code(
    dfc: Dfc, tree: Path, change: Callable[[Path], object], said: str
) -> None:
    (tree / "file").chmod(0o644)
    dfc.ok("put", "tree/file", "/tree/file")
    change(tree)
    outcome = dfc("verify", "--against", "tree", "tree")
    assert outcome.code == 14
    assert outcome.out.startswith(said)
    assert outcome.out.count("\n") == 1
    (found,) = json.loads(dfc("verify", "--against", "tree", "tree", "--json").out)
    assert f"{found['path']}: {found['difference']}".replace("\n", "\\n").startswith(said)


def test_all_contents_are_compared_to_the_last_byte(dfc: Dfc, tree: Path) -> None:
    with (tree / "sub" / "file").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"x")
    outcome = dfc("verify", "--against", "tree", "tree")
    assert outcome.out == f"/tree/sub/file: its contents differ from byte {(5 << 20) - 1} on\n"


def test_what_is_not_there(dfc: Dfc, tree: Path) -> None:
    assert dfc("verify", "--against", "nowhere", "tree").code == 1
    assert dfc("verify", "--against", "tree", "nowhere").code == 1
