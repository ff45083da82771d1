"""What takes minutes begins first; and a run that is interrupted says which tests were running. Failures are shown as
they happen, by pytest-instafail.

Hypothesis tries the same examples in each run, and does not fail one for being slow: a crowded machine is no fault.
"""

from __future__ import annotations

import pytest
from hypothesis import settings

settings.register_profile("dfsfuse", deadline=None, derandomize=True)
settings.load_profile("dfsfuse")


class RunningTests:
    """The tests that have begun and not ended, in all worker processes: xdist passes these hooks on to the main one."""

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
    """Tests that are marked as long come first: begun last, one of them would hold up the end."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(RunningTests(), "running-tests")
