"""The fixture `files`: files whose segments are on four fake servers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.stored_files import StoredFiles


@pytest.fixture
def files() -> Iterator[StoredFiles]:
    """A namespace without files."""
    files = StoredFiles()
    yield files
    files.close()
