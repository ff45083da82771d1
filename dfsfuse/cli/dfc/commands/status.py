"""`dfc status`: the state of the servers, whether all data has its two copies, and what works now."""

from __future__ import annotations

import os
import time

import click

from dfs_server.protocol.limits import SERVERS
from dfsfuse.cli.config import password_note
from dfsfuse.cli.dfc.client import Client
from dfsfuse.cli.dfc.health_look import Health
from dfsfuse.cli.dfc.piece_reports import NEVER, QUICK_S, about_pieces, pieces_as_dictionary
from dfsfuse.cli.dfc.server_notes import NS, remarks
from dfsfuse.cli.dfc.server_reports import ServerReport
from dfsfuse.cli.output import complain, human_size, printable, table, write_json, write_line, write_lines
from dfsfuse.cli.reports import AlreadyReported
from dfsfuse.errors import WrongServerError
from dfsfuse.upkeep.health.servers import ANSWERING, Server, State


@click.command("status", short_help="Show the state of the servers, and whether all data has its two copies.")
@click.option("--count", is_flag=True, help="Count the copies of all data, however long that takes.")
@click.option("-l", "--long", "is_long", is_flag=True, help="Also show each server's last change, and its pieces.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
@click.pass_obj
def status(client: Client, count: bool, is_long: bool, as_json: bool) -> None:
    """Show which servers answer, how fast, and how much space they have; why the others do not; and whether all data
    has its two copies.

    STORED is how much of your data the server holds. Below the table are the things that need attention (a full disk,
    bad copies, wrong answers), what works now, and how many copies there are. Copies are counted now, for two seconds
    at most; with --count for as long as it takes.

    -l adds SLOT, the last change of your namespace that the server has (a server that is behind catches up
    automatically), and PIECES, how many it holds.

    That any one server may fail is only said when it is true at that moment: all four have everything, and all data was
    counted.

    The exit code is 0 if all files can be read and written, 3 if some data has no copy available now, 4 or 5 if a
    server refuses the user or is not the one that the config names, 6 if no server answers, 7 if too few servers answer
    to write, 9 if too few have free space.
    """
    health = client.health(NEVER if count else QUICK_S)
    verdict = health.verdict
    if as_json:
        write_json(everything(health))
    else:
        write_lines(lines(health, is_long=is_long))
        write_lines(remarks(list(health.reports), health.servers, time.time(), is_long=is_long))
        write_line(verdict.sentence)
        if any(server.state in ANSWERING for server in health.servers.values()) and verdict.access != "refused":
            write_lines(about_pieces(health.known, health.pieces, health.servers, time.time_ns()))
    for sentence in next_steps(health):
        complain(sentence)
    if health.error is not None:
        raise health.error
    if verdict.exit_code:
        raise AlreadyReported(verdict.exit_code)


def next_steps(health: Health) -> list[str]:
    """What to do when nothing works, and which file to check."""
    file = "the client's config" if health.config is None else printable(health.config)
    if health.verdict.access == "none":
        return [f"start the servers, or correct their addresses in {file}"]
    if health.verdict.access != "refused":
        return []
    found = [str(report.error) for report in health.reports if isinstance(report.error, WrongServerError)]
    if any(server.state is State.REFUSED for server in health.servers.values()):
        found.append(f"correct 'username' or the password in {file}, or add the user to the dfs.yaml of these servers")
        if note := password_note(os.environ):
            found.append(note)
    return found if found else [f"the servers are those of {file}"]


def lines(health: Health, *, is_long: bool = False) -> list[str]:
    """The lines of the table."""
    header = ("SERVER", "ADDRESS", "STATE", "LATENCY", "FREE", "TOTAL", "STORED", "SLOT", "PIECES")
    columns = len(header) if is_long else len(header) - 2
    rows = [_row(report, health.servers[report.address.id])[:columns] for report in health.reports]
    return table(rows, header=header[:columns], right="   rrrrrr")


def _row(report: ServerReport, server: Server) -> tuple[str, ...]:
    address = report.address
    begin = (printable(address.name), f"{printable(address.host)}:{address.port}", server.words)
    found = report.status
    if found is None or report.latency_s is None:
        return (*begin, *("-" for _ in range(6)))
    return (
        *begin,
        f"{report.latency_s * 1000:.1f} ms",
        human_size(found.free_bytes),
        human_size(found.total_bytes),
        human_size(found.piece_bytes),
        str(found.applied),
        str(found.piece_count),
    )


def everything(health: Health) -> dict[str, object]:
    """Everything, for JSON."""
    verdict, names = health.verdict, health.names
    return {
        "access": verdict.access,
        "exit_code": verdict.exit_code,
        "summary": verdict.sentence,
        "writing": verdict.writing,
        "reading": verdict.reading,
        "copies": str(health.known.copies),
        "counted_s_ago": None if health.known.age_s is None else round(health.known.age_s),
        "may_fail": [names[id] for id in sorted(verdict.may_fail)],
        "any_one_may_fail": len(verdict.may_fail) == SERVERS,
        "config": None if health.config is None else str(health.config),
        "servers": [as_dictionary(report, health.servers[report.address.id]) for report in health.reports],
        **pieces_as_dictionary(health.pieces),
    }


def as_dictionary(report: ServerReport, server: Server) -> dict[str, object]:
    """A server for JSON."""
    facts: dict[str, object] = {
        "name": report.address.name,
        "host": report.address.host,
        "port": report.address.port,
        "answers": report.status is not None,
        "state": str(server.state),
    }
    if report.noted is not None and report.noted.faults:
        facts["wrong_answers"] = {
            "count": report.noted.faults,
            "last": report.noted.fault_ns // NS,
            "what": report.noted.fault,
        }
    if report.status is None or report.latency_s is None:
        return facts | {"reason": server.reason, "problem": report.problem}
    return facts | {
        "version": report.status.version,
        "latency_ms": round(report.latency_s * 1000, 3),
        "free_bytes": report.status.free_bytes,
        "full": report.is_full,
        "missing_copies": server.lacks,
        "quarantined": report.status.quarantined,
        "damage": report.status.damage,
        "total_bytes": report.status.total_bytes,
        "applied_slot": report.status.applied,
        "pieces": report.status.piece_count,
        "stored_bytes": report.status.piece_bytes,
    }
