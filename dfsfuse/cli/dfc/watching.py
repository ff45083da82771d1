"""`dfc heal --watch`: keeps running, and heals whenever a copy is missing; for machines without a mount.

It does what a mount's healer does (`dfsfuse.upkeep.heal.background`), at a limited rate, taking turns with all other
healers. Its output is the healer's log: the overall state whenever that changes, what was healed, and servers that come
and go. It waits while too few servers answer, even at the start; a server that refuses the user, or is a different one,
ends it at the start, since that will not resolve itself.

SIGINT and SIGTERM end it within a moment, with exit status 0. SIGHUP makes it read its config again, as a mount does
(`dfsfuse.cli.mount.config_watch`), so that it learns the address of a replaced machine. It has one thread, besides
those of the connection.
"""

from __future__ import annotations

import logging
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

from dfsfuse.cli.dfc.client import Client, Connection
from dfsfuse.cli.mount.config_watch import ConfigWatch
from dfsfuse.cli.output import write_line
from dfsfuse.errors import StoppedError, UnavailableError
from dfsfuse.upkeep.heal.background import SETTLE_S, STEP_S, HealingTurn
from dfsfuse.upkeep.heal.bandwidth import Bucket
from dfsfuse.upkeep.map_reader import MapReader

EVERY_S: Final = 600.0
"""How often it checks everything without a specific reason."""
RETRY_S: Final = 5.0
"""Pause between two attempts to connect."""
NEWS: Final = (
    "dfsfuse.upkeep",
    "dfsfuse.cli.mount.config_watch",
    "dfsfuse.net.lines",
    "dfsfuse.namespace.ops.server_register",
)
"""The loggers whose messages are shown."""


def watch(client: Client, *, mb_s: float) -> None:
    """Heal until a signal arrives. Raises AuthenticationError, WrongServerError and ConfigError."""
    again = threading.Event()
    with _by_signals(again) as stop:
        connection = _connected(client, stop.wait)
        if connection is not None:
            write_line("Watching: missing copies are recreated. Ctrl-C ends this.")
            config = connection.config_watch()
            config.start()
            try:
                with _news_shown(), connection.repairer():
                    heal_until_stopped(connection, stop, mb_s=mb_s, each_step=lambda: _read_again(config, again))
            finally:
                config.close()
    write_line("Ended.")


def heal_until_stopped(
    connection: Connection,
    stop: threading.Event,
    *,
    mb_s: float,
    settle_s: float = SETTLE_S,
    each_step: Callable[[], object] = lambda: None,
) -> None:
    """Take a step of healing each second."""
    turn = HealingTurn(
        connection.cluster,
        MapReader(connection.new_log(), recall=False),
        connection.store,
        bucket=Bucket(mb_s * 1_000_000),
        wait=stop.wait,
        first_s=0.0,
        every_s=EVERY_S,
        settle_s=settle_s,
    )
    while not stop.is_set():
        each_step()
        try:
            turn.step()
        except StoppedError:
            return
        stop.wait(STEP_S)


def _connected(client: Client, wait: Callable[[float], bool]) -> Connection | None:
    """The connection, as soon as enough servers answer; None if a signal came first."""
    said = ""
    while True:
        try:
            return client.connection
        except UnavailableError as error:
            if str(error) != said:
                said = str(error)
                write_line(f"Waiting for the servers: {error}")
        if wait(RETRY_S):
            return None
        client.access.refresh()


def _read_again(config: ConfigWatch, again: threading.Event) -> None:
    if again.is_set():
        again.clear()
        config.read_again("SIGHUP")


@contextmanager
def _by_signals(again: threading.Event) -> Iterator[threading.Event]:
    """An event that SIGINT and SIGTERM set, instead of their previous effect; SIGHUP sets `again`."""
    stop = threading.Event()

    def end(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    before[signal.SIGHUP] = signal.signal(signal.SIGHUP, lambda _number, _frame: again.set())
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _news_shown() -> Iterator[None]:
    """Send the log messages of the healer and the connection to standard output, with the time."""
    handler = logging.StreamHandler(sys.stdout)
    formatter = logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S")
    formatter.converter = time.localtime
    handler.setFormatter(formatter)
    handler.setLevel(logging.INFO)
    loggers = [logging.getLogger(name) for name in NEWS]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(level)
