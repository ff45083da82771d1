"""What the namespace has recorded about its servers, and what needs the user's attention: a new disk, wrong answers.

Reads one record from one answering server, in that server's version: it is only displayed. Knows the record
(`dfsfuse.namespace.records.members`) and the ReadKeys message.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from dfs_server.protocol.batches import NO_BATCH
from dfs_server.protocol.limits import QUORUM
from dfs_server.protocol.messages import ReadKeys, Values
from dfsfuse.cli.dfc.server_reports import ClusterLike, ServerReport
from dfsfuse.cli.output import printable
from dfsfuse.namespace.records import keys, members
from dfsfuse.namespace.records.members import Member
from dfsfuse.net.exchange import Answer
from dfsfuse.net.stalls import STATUS_S
from dfsfuse.upkeep.health.servers import TAKES_DATA, Server, State, is_damaged

RECENT_S = 7 * 24 * 3600
"""For how long wrong answers are shown."""
NS = 1_000_000_000


def remarks(
    reports: list[ServerReport], servers: Mapping[int, Server], now_s: float, *, is_long: bool = False
) -> list[str]:
    """A line for each thing that the user should know. `servers`: each server's state, by id."""
    found = []
    others_take_data = sum(server.state in TAKES_DATA for server in servers.values()) >= QUORUM
    goes = "new data goes to the others; " if others_take_data else ""
    for report in reports:
        name = printable(report.address.name)
        server = servers[report.address.id]
        if server.state is State.EMPTY and not (report.status and is_damaged(report.status)):
            found.append(
                f"{name} is empty, like a new disk: mounts, or 'dfc heal', bring back its data; until then no "
                "other server should fail."
            )
        elif server.lacks:
            copies = "1 copy that belongs there: mounts, or 'dfc heal', make it"
            if server.lacks > 1:
                copies = f"{server.lacks:,} copies that belong there: mounts, or 'dfc heal', make them"
            found.append(f"{name} lacks {copies}; until then no other server should fail.")
        if server.state is State.BEHIND:
            changes = "the last change" if server.behind == 1 else f"the last {server.behind:,} changes"
            found.append(f"{name} does not have {changes} yet: mounts, or 'dfc heal', bring it up to date.")
        if report.is_full:
            found.append(f"{name} is full: {goes}free space on its disk, or delete files that are not needed.")
        if report.status is not None and report.status.quarantined:
            found.append(
                f"{name} has found {report.status.quarantined} bad copies on its disk: they are recreated from the "
                "others; check the disk's health."
            )
        if report.status is not None and report.status.damage:
            found.append(
                f"{name} has found damage in its database ({printable(report.status.damage)}): what is not repaired "
                "yet is "
                "copied again from another server by a mount, or by 'dfc heal'; check the disk's health."
            )
        noted = report.noted
        if noted is not None and is_recent(noted, now_s):
            what = f": {printable(noted.fault)}" if is_long else ""
            last = datetime.fromtimestamp(noted.fault_ns / NS).strftime("%Y-%m-%d %H:%M")
            found.append(
                f"{name} gave wrong answers ({noted.faults} so far, the last on {last}{what}); another copy was used "
                "each time; check the disk's health."
            )
    return found


def is_recent(noted: Member, now_s: float) -> bool:
    """Whether the server's last wrong answer was recent."""
    return bool(noted.faults) and now_s - noted.fault_ns / NS < RECENT_S


def _readable(report: ServerReport) -> tuple[bool, int]:
    """How well the server's map can be read, as a sort key: a damaged one worst."""
    return (not report.status.damage, report.status.applied) if report.status else (False, 0)


def read(cluster: ClusterLike, reports: list[ServerReport]) -> dict[int, Member]:
    """What is recorded about each server, by its id; nothing if no server can tell."""
    answering = [report for report in reports if report.status is not None]
    if not answering:
        return {}
    best = max(answering, key=_readable).address.id
    request = ReadKeys(0, NO_BATCH, (keys.SERVERS,))
    outcome = cluster.try_all(request, [best], stall_s=STATUS_S).get(best)
    if not isinstance(outcome, Answer) or not isinstance(outcome.reply, Values) or len(outcome.reply.values) != 1:
        return {}
    try:
        return members.decode(outcome.reply.values[0])
    except OSError:  # of a newer format: not a reason for `status` to fail
        return {}
