"""The parts of the benchmark that no other test runs, which must follow the code that they imitate."""

from __future__ import annotations

from pathlib import Path

import pytest
from bench import binding_costs
from bench import run as running
from bench.steps.content import Sizes
from rich.console import Console

SMALLEST = Sizes(large_mib=2, files=3, synced_files=1, random_operations=1, random_s=1.0)


def test_the_no_op_file_system_does_what_both_bindings_ask() -> None:
    costs = binding_costs.measure(SMALLEST, runs=1)
    assert len(costs) == 4
    assert all(cost.per_second[binding] > 0 for cost in costs for binding in binding_costs.BINDINGS)


def test_what_was_measured_before_a_part_failed_is_in_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cost = binding_costs.Cost("write", "MB/s", {"kernel": 2.0, "fusepy": 1.0})

    def fail(*_: object) -> None:
        raise RuntimeError("two mounts cannot be mounted")

    monkeypatch.setattr(binding_costs, "measure", lambda *_: [cost])
    monkeypatch.setattr(running.two_mounts, "measure", fail)
    monkeypatch.setattr(running, "STEPS", ())
    monkeypatch.setattr(running.machine, "drop_caches", lambda: True)
    with pytest.raises(RuntimeError, match="two mounts"):
        running.run(running.Options(1, False, "", tmp_path, ()), Console(quiet=True))
    (file,) = tmp_path.glob("*.json")
    assert '"step": "write"' in file.read_text()
