"""Paths as people type them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfsfuse.cli.dfc import remote_paths


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("", b"/"),
        ("/", b"/"),
        (".", b"/"),
        ("a", b"/a"),
        ("/a/b/", b"/a/b"),
        ("//a//./b/.", b"/a/b"),
        ("a/../b", b"/b"),
        ("a/b/../../c", b"/c"),
        ("a/..", b"/"),
        ("...", b"/..."),
        (b"caf\xe9", b"/caf\xe9"),
        ("caf\udce9", b"/caf\xe9"),
        ("two\nlines", b"/two\nlines"),
    ],
)
def test_what_is_typed_becomes_a_normal_absolute_path(typed: str | bytes, meant: bytes) -> None:
    assert remote_paths.normal(typed) == meant


@pytest.mark.parametrize("typed", ["..", "/..", "a/../..", "../a", "/../../etc/passwd", "a/../../a", "zero\0byte"])
def test_what_would_leave_the_root_is_refused(typed: str) -> None:
    with pytest.raises(OSError) as caught:
        remote_paths.normal(typed)
    assert caught.value.errno == 22


@given(st.text(alphabet="ab./", max_size=20))
def test_normal_paths_are_normal(text: str) -> None:
    try:
        path = remote_paths.normal(text)
    except OSError:
        return
    assert remote_paths.normal(path) == path
    assert path.startswith(b"/")
    assert not {b"", b".", b".."} & set(path.split(b"/")[1:]) or path == b"/"
    if path != b"/":
        assert remote_paths.join(remote_paths.parent(path), remote_paths.base_name(path)) == path


def test_inside_means_whole_names() -> None:
    assert remote_paths.is_inside(b"/a/b", b"/a")
    assert remote_paths.is_inside(b"/a", b"/a")
    assert remote_paths.is_inside(b"/a", b"/")
    assert not remote_paths.is_inside(b"/ab", b"/a")


@pytest.mark.parametrize(
    ("text", "folder"),
    [("a/", True), ("/", True), ("a/.", True), ("a/..", True), ("a", False), ("a.", False)],
)
def test_which_texts_mean_a_folder(text: str, folder: bool) -> None:
    assert remote_paths.names_a_folder(text) is folder
