"""Executors for tests: one that does its work at once, and one that waits until the test runs it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Immediate(Executor):
    """Runs each task before `submit` returns."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        future: Future[T] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 (as any executor does)
            future.set_exception(error)
        return future


class Held(Executor):
    """Keeps tasks until `run` is called; while `is_released`, runs them at once."""

    def __init__(self) -> None:
        self.is_released = False
        self._tasks: list[Callable[[], object]] = []

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        future: Future[T] = Future()

        def task() -> None:
            try:
                future.set_result(fn(*args, **kwargs))
            except Exception as error:  # noqa: BLE001 (as any executor does)
                future.set_exception(error)

        self._tasks.append(task)
        if self.is_released:
            self.run()
        return future

    @contextmanager
    def released(self) -> Iterator[None]:
        """Run waiting tasks, and within the block all further ones at once."""
        self.run()
        self.is_released = True
        yield
        self.is_released = False

    def run(self) -> None:
        """Run all waiting tasks, and those that they submit."""
        while self._tasks:
            self._tasks.pop(0)()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self.run()
