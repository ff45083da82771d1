"""The conformance suite on a plain folder (which tests the tests), the library, and mounts with both bindings.

One mount on four real servers serves all cases of its binding, each in a folder of its own. Known differences are in
`conformance.deviations`: they must fail, and an unexpected pass is a failure here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conformance.all_cases import CASES
from conformance.deviations import DEVIATIONS
from conformance.fs import OsFs
from conformance.registry import Case
from conformance.vfs_fs import VfsFs
from support.libraries import memory_vfs
from support.mounts import Grid

from dfsfuse.vfs.vfs import Vfs

pytestmark = pytest.mark.integration

EmptyFolder = Callable[[str], OsFs | VfsFs]
"""Returns a file system for a new folder of this name."""


def on(backend: str, *, kernel: bool = True) -> list[object]:
    """Return the cases for a backend, with its known deviations marked."""
    assert {case for name, case in DEVIATIONS if name == backend} <= {case.name for case in CASES}
    parameters: list[object] = []
    for case in CASES:
        if case.needs_kernel and not kernel:
            continue
        reason = DEVIATIONS.get((backend, case.name))
        marks = [pytest.mark.xfail(strict=True, reason=reason)] if reason else []
        parameters.append(pytest.param(case, id=case.name, marks=marks))
    return parameters


@pytest.mark.parametrize("case", on("folder"))
def test_folder(case: Case, tmp_path: Path) -> None:
    case.run(OsFs(tmp_path))


@pytest.fixture(scope="module")
def library() -> Iterator[Vfs]:
    with memory_vfs() as vfs:
        yield vfs


@pytest.mark.parametrize("case", on("library", kernel=False))
def test_library(case: Case, library: Vfs) -> None:
    case.run(VfsFs(library).folder(case.name.encode()))


@pytest.fixture(scope="module")
def mountpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with Grid(tmp_path_factory.mktemp("grid")) as grid:
        yield grid.mount(options=["-o", "binding=fusepy"]).path


@pytest.mark.parametrize("case", on("mount"))
def test_mount(case: Case, mountpoint: Path) -> None:
    folder = mountpoint / case.name
    folder.mkdir()
    case.run(OsFs(folder))


@pytest.fixture(scope="module")
def kernel_mountpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with Grid(tmp_path_factory.mktemp("kernel-grid")) as grid:
        yield grid.mount(options=["-o", "binding=kernel"]).path


@pytest.mark.parametrize("case", on("kernel"))
def test_kernel_mount(case: Case, kernel_mountpoint: Path) -> None:
    folder = kernel_mountpoint / case.name
    folder.mkdir()
    case.run(OsFs(folder))
