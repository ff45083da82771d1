"""`dfc heal --watch`: stays, and heals whenever something lacks a copy, for machines on which no mount runs.

Does what a mount's healer does (`dfsfuse.upkeep.heal.background`), at a bounded rate, by turns with all others who
heal. What it has to say is the log of that: how it stands whenever that changes, what was healed, and servers that come
and go. Too few servers, or none at the beginning, are waited for; a server that refuses the user, or is another one,
ends it at the beginning, since that will not mend itself.

SIGINT and SIGTERM end it within a moment, with exit status 0. SIGHUP makes it read its config again, as a mount does
(`dfsfuse.cli.mount.config_watch`): a machine that was replaced is what it is there for. One thread, besides those of
the connection.
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
"""It looks at everything so often without a further reason."""
RETRY_S: Final = 5.0
"""Between two attempts to connect."""
NEWS: Final = (
    "dfsfuse.upkeep",
    "dfsfuse.cli.mount.config_watch",
    "dfsfuse.net.lines",
    "dfsfuse.namespace.ops.server_register",
)
"""The logs that are shown."""


def watch(client: Client, *, mb_s: float) -> None:
    """Heal until a signal comes. Raises AuthenticationError, WrongServerError and ConfigError."""
    again = threading.Event()
    with _by_signals(again) as stop:
        connection = _connected(client, stop.wait)
        if connection is not None:
            write_line("Watching: what lacks a copy is healed. Ctrl-C ends this.")
            config = connection.config_watch()
            config.start()
            try:
                with _news_shown():
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
    """The connection, as soon as enough servers answer for one; None if it was ended before."""
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
    """An event that SIGINT and SIGTERM set, instead of what they did before; SIGHUP sets `again`."""
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
    """What the healer, and the connection, say in the log goes to standard output, with the time."""
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
