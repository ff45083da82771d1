"""Two mounts that write in one large folder without pause each get their share, in virtual time.

Real logs on four servers and real maps; the times that operations and servers' answers take are fixed.
"""

from __future__ import annotations

import random
import stat

import pytest
from support.fake_log import answer_early
from support.in_turn import InTurn
from support.log_cluster import LogCluster

from dfs_server.protocol.messages import ReadKeys, ReadRange
from dfsfuse.log.lease import ANSWERS_S
from dfsfuse.log.quorum_log import QuorumLog
from dfsfuse.namespace.map.log_map import LogMap
from dfsfuse.namespace.map.transactions import Transaction
from dfsfuse.namespace.map.worker import LINGER_S
from dfsfuse.namespace.ops import directories, inodes, renames
from dfsfuse.namespace.records import keys
from dfsfuse.namespace.records.keys import ROOT

NAMES = 5000
LASTS_S = 1.0
OPERATION_S = 0.0003
NEW = inodes.new(stat.S_IFDIR | 0o755, 0, 0, 1)


class Writer:
    """A mount with one program that makes names in a folder, and the number of names it has made."""

    def __init__(self, cluster: LogCluster, number: int) -> None:
        self.clock = cluster.grid.clock
        self.number = number
        self.log = QuorumLog(cluster, client=b"writer-%d" % number, clock=self.clock, sleep=self.sleep)  # type: ignore[arg-type]
        self.log._random = random.Random(number)
        self.log.want_lease()
        self.map = LogMap(self.log, keys.family_of, self.clock, self.sleep)
        answer_early(self.map, ANSWERS_S)
        self.done = 0

    def sleep(self, seconds: float) -> None:
        self.clock.wait_until(self.clock() + seconds)

    def write(self, what: str) -> None:
        """Run the operation `what` on its own names, which it has read before, without pause for LASTS_S."""
        mine = range(self.number * NAMES, (self.number + 1) * NAMES)
        self.map.read(lambda view: view.get_many([keys.inode(10 + name) for name in mine]))
        ends = self.clock() + LASTS_S
        lingers_until = self.clock() + LINGER_S
        while self.clock() < ends:
            self.operate(what, self.number * NAMES + self.done)
            self.done += 1
            self.sleep(OPERATION_S)
            if self.clock() >= lingers_until:
                self.map.run(self.map.worker.commit_waiting())
                lingers_until = self.clock() + LINGER_S

    def operate(self, what: str, number: int) -> None:
        """Look up first whether the new name is free, as the kernel does."""
        assert self.map.read(lambda view: directories.find(view, ROOT, b"new %d" % number), max_age_s=0.5) is None
        self.map.transact(lambda tx: operate(tx, what, number), durable=False)


def operate(tx: Transaction, what: str, number: int) -> None:
    """Run the operation on the name for this number."""
    if what == "mkdir":
        directories.make(tx, ROOT, b"new %d" % number, 10 + number, NEW, 2)
    elif what == "rename":
        renames.rename(tx, ROOT, b"%d" % number, ROOT, b"new %d" % number, 2)
    else:
        directories.rmdir(tx, ROOT, b"%d" % number, 2)


def rates(cluster: LogCluster, what: str, *numbers: int) -> list[int]:
    """Return how many operations each of these writers completes, on names in the root, with fresh mounts."""
    filler = Writer(cluster, 0)
    filler.map.transact(lambda tx: inodes.make_root(tx, 1))
    for number in numbers:
        filler.map.transact(lambda tx, number=number: fill(tx, number))  # type: ignore[misc]
    filler.log.settle()
    writers = [Writer(cluster, number) for number in numbers]
    InTurn(cluster.grid.clock).run(*(lambda writer=writer: writer.write(what) for writer in writers))  # type: ignore[misc]
    return [writer.done for writer in writers]


def fill(tx: Transaction, number: int) -> None:
    for name in range(number * NAMES, (number + 1) * NAMES):
        directories.make(tx, ROOT, b"%d" % name, 10 + name, NEW, 2)


@pytest.mark.parametrize("what", ["mkdir", "rename", "rmdir"])
def test_in_one_large_folder_each_gets_a_quarter_of_what_one_alone_gets(log_cluster: LogCluster, what: str) -> None:
    (alone,) = rates(log_cluster, what, 1)
    both = rates(log_cluster, what, 2, 3)
    assert min(both) >= alone / 4, (alone, both)
    reads = sum(isinstance(call.request, ReadKeys | ReadRange) for call in log_cluster.started)
    assert reads < 400, "others' names are not read one by one, and the folder's record is read once in each turn"
