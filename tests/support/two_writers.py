"""Mounts that make folders without pause, side by side: how many each makes."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

SLICE_S = 1.0


def write_for(folders: list[Path]) -> list[float]:
    """One thread in each of these folders makes others without pause. How many each makes in a second, once each has
    made one."""
    stop = threading.Event()
    begin = threading.Barrier(len(folders) + 1, timeout=30)
    made = [0] * len(folders)
    name = str(time.monotonic())

    def write(who: int) -> None:
        (folders[who] / name).mkdir()
        begin.wait()
        while not stop.is_set():
            (folders[who] / f"{name}.{made[who]}").mkdir()
            made[who] += 1

    with ThreadPoolExecutor(len(folders)) as pool:
        writers = [pool.submit(write, who) for who in range(len(folders))]
        begin.wait()
        begun = time.monotonic()
        stop.wait(SLICE_S * len(folders))
        stop.set()
        for writer in writers:
            writer.result(30)
        lasted_s = time.monotonic() - begun
    return [count / lasted_s for count in made]
