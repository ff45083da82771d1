"""The cases of `test_lockstep`, each in a separate process: `python -m budget.lockstep_cases NAME`.

Each case prints what happened, in order, then the seconds that passed, and the hand-overs.
"""

from __future__ import annotations

from support import lockstep

schedule = lockstep.install()

import queue  # noqa: E402
import sys  # noqa: E402
import threading  # noqa: E402
import time  # noqa: E402
from collections.abc import Callable  # noqa: E402
from concurrent.futures import ThreadPoolExecutor  # noqa: E402


def lock_is_handed_over() -> None:
    lock = threading.Lock()

    def work() -> None:
        print("work begins")
        with lock:
            print("work has the lock")

    with lock:
        thread = threading.Thread(target=work, name="work")
        thread.start()
        time.sleep(1.0)
        print("main lets go")
    thread.join()


def event_times_out_or_is_set() -> None:
    event = threading.Event()

    def work() -> None:
        print(event.wait(2.0))
        print(event.wait(2.0))

    thread = threading.Thread(target=work, name="work")
    thread.start()
    time.sleep(3.0)
    event.set()
    thread.join()


def sleepers_wake_in_order_of_time() -> None:
    threads = [
        threading.Thread(target=lambda wait_s=wait_s: (time.sleep(wait_s), print(wait_s))) for wait_s in (3, 1, 2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def executor_works_when_it_is_waited_for() -> None:
    with ThreadPoolExecutor(1, thread_name_prefix="work") as executor:
        future = executor.submit(print, "submitted work")
        print("main waits")
        future.result()


def queue_with_time_out() -> None:
    items: queue.SimpleQueue[int] = queue.SimpleQueue()
    try:
        items.get(timeout=5.0)
    except queue.Empty:
        print("empty")


def reentrant_lock() -> None:
    lock = threading.RLock()
    with lock, lock:
        print(lock.acquire())


def all_wait_for_each_other() -> None:
    threading.Event().wait()


def main(case: Callable[[], None]) -> None:
    begun_s = schedule.now_s
    case()
    print(f"{round(schedule.now_s - begun_s, 3):g} s")
    print(", ".join(f"{waker} woke {woken} {times} x" for (woken, waker), times in sorted(schedule.hand_overs.items())))


if __name__ == "__main__":
    main(globals()[sys.argv[1]])
