"""`dfc status`: which servers answer, how fast, how much room they have, and whether every piece has its two copies."""

from __future__ import annotations

import time

import click

from dfsfuse.cli.client import Client
from dfsfuse.cli.output import human_size, printable, table, write_json, write_line, write_lines
from dfsfuse.cli.piece_reports import about_pieces, pieces_as_dictionary
from dfsfuse.cli.reports import AlreadyReported
from dfsfuse.cli.server_notes import NS, is_empty, newest_slot, remarks
from dfsfuse.cli.server_reports import ServerReport
from dfsfuse.errors import ReadOnlyError, UnavailableError

QUORUM = 3


@click.command("status", short_help="Show which servers answer, how fast, and their room.")
@click.option("--json", "as_json", is_flag=True, help="As JSON, for programs.")
@click.pass_obj
def status(client: Client, as_json: bool) -> None:
    """Show which servers answer, how fast, and how much room they have.

    SLOT is the last change of your namespace that the server has; one that is behind catches up by itself. PIECES
    and STORED are what it holds of your files. Below the table stands what a person should see to: a full disk,
    bad pieces, wrong answers.

    Then: whether every piece of your files has its two copies, counted now if that is quick, and how far healing is.

    The exit code is 0 if files can be read and written, 7 if they can be read only (fewer than three servers answer), 6
    if no server answers.
    """
    reports = client.server_reports()
    answering = sum(report.status is not None for report in reports)
    pieces = client.piece_report() if answering else None
    if as_json:
        servers = [as_dictionary(report) for report in reports]
        write_json({"access": access(answering), "servers": servers, **pieces_as_dictionary(pieces)})
    else:
        write_lines(lines(reports))
        write_lines(remarks(reports, time.time()))
        write_line(summary(answering, len(reports), able=count_able(reports)))
        write_lines(about_pieces(pieces, time.time_ns()))
    if answering < QUORUM:
        raise AlreadyReported(ReadOnlyError.exit_code if answering else UnavailableError.exit_code)


def access(answering: int) -> str:
    """What can be done with so many servers."""
    if answering >= QUORUM:
        return "read-write"
    return "read-only" if answering else "none"


def count_able(reports: list[ServerReport]) -> int:
    """How many servers can take what is written: neither full nor still without the map."""
    newest = newest_slot(reports)
    return sum(one.status is not None and not one.is_full and not is_empty(one, newest) for one in reports)


def summary(answering: int, servers: int, *, able: int) -> str:
    """The same as a sentence. `able`: so many of those that answer can take what is written."""
    if answering >= QUORUM > able:
        return f"{answering} of {servers} servers answer, but only {able} can take what is written: reading works."
    if able == servers:
        return "All servers answer: reading and writing work, and any one server may fail."
    if answering == servers:
        return "All servers answer: reading and writing work."
    if answering >= QUORUM:
        return f"{answering} of {servers} servers answer: reading and writing work."
    if answering:
        return f"{answering} of {servers} servers answer: read-only; files that need the others are incomplete."
    return "No server answers."


def lines(reports: list[ServerReport]) -> list[str]:
    """The table."""
    newest = newest_slot(reports)
    rows = []
    for report in reports:
        address = report.address
        where = f"{printable(address.host)}:{address.port}"
        found = report.status
        if found is None or report.latency_s is None:
            rows.append((printable(address.name), where, "no answer", *("-" for _ in range(6))))
            continue
        behind = newest - found.applied
        rows.append(
            (
                printable(address.name),
                where,
                "empty" if is_empty(report, newest) else _state(report, behind),
                f"{report.latency_s * 1000:.1f} ms",
                human_size(found.free_bytes),
                human_size(found.total_bytes),
                str(found.applied),
                str(found.piece_count),
                human_size(found.piece_bytes),
            )
        )
    header = ("SERVER", "ADDRESS", "STATE", "LATENCY", "FREE", "TOTAL", "SLOT", "PIECES", "STORED")
    return table(rows, header=header, right="   rrrrrr")


def _state(report: ServerReport, behind: int) -> str:
    if report.is_full:
        return "full"
    return f"behind by {behind}" if behind else "ok"


def as_dictionary(report: ServerReport) -> dict[str, object]:
    """A server for JSON."""
    facts: dict[str, object] = {
        "name": report.address.name,
        "host": report.address.host,
        "port": report.address.port,
        "answers": report.status is not None,
    }
    if report.noted is not None and report.noted.faults:
        facts["wrong_answers"] = {
            "count": report.noted.faults,
            "last": report.noted.fault_ns // NS,
            "what": report.noted.fault,
        }
    if report.status is None or report.latency_s is None:
        return facts | {"problem": report.problem}
    return facts | {
        "version": report.status.version,
        "latency_ms": round(report.latency_s * 1000, 3),
        "free_bytes": report.status.free_bytes,
        "full": report.is_full,
        "quarantined": report.status.quarantined,
        "damage": report.status.damage,
        "total_bytes": report.status.total_bytes,
        "applied_slot": report.status.applied,
        "pieces": report.status.piece_count,
        "stored_bytes": report.status.piece_bytes,
    }
