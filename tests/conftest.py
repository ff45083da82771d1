"""Tests that take minutes run first, and an interrupted run reports which tests were running. pytest-instafail shows
failures as they happen.

Hypothesis tries the same examples in each run, and never fails one for being slow: a busy machine is not a fault.
"""

from __future__ import annotations

import pytest
from hypothesis import settings

settings.register_profile("dfsfuse", deadline=None, derandomize=True)
settings.load_profile("dfsfuse")


class RunningTests:
    """The tests that have begun and not ended, in all worker processes: xdist forwards these hooks to the main
    process."""

    def __init__(self) -> None:
        self._running: dict[str, None] = {}

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._running[nodeid] = None

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        self._running.pop(nodeid, None)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter, exitstatus: int) -> None:
        if exitstatus == pytest.ExitCode.INTERRUPTED:
            for nodeid in self._running:
                terminalreporter.write_line(f"RUNNING {nodeid}")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put tests marked as long first: if one began last, the others would be done long before it."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(RunningTests(), "running-tests")
