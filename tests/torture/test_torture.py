"""A short run of the torture: real servers, mounts and faults, with a fixed seed. A long run is `make torture`."""

from __future__ import annotations

from pathlib import Path

import pytest

from .field import Field
from .run import Options, Run

pytestmark = [pytest.mark.integration, pytest.mark.long, pytest.mark.timeout(420)]

SEED = 3395
FAULTS = 6


def test_a_short_run(tmp_path: Path) -> None:
    with Field(tmp_path / "field") as field:
        report = Run(Options(SEED, 360, tmp_path, faults=FAULTS), field).run()
        print("\n".join(report.lines()))
        assert report.passed, "\n".join(report.violations)
    assert sum(report.faults.values()) == FAULTS
    assert sum(report.operations.values()) > 300, "too little was done for the run to show anything"
    assert report.checks["copies of pieces"] > 100
