"""`dfc heal`: recreates missing copies now, in the foreground, and reports what was done."""

from __future__ import annotations

import contextlib
import math
import stat
import time
from collections.abc import Iterator

import click

from dfsfuse.cli import exit_codes
from dfsfuse.cli.dfc import remote_paths, watching
from dfsfuse.cli.dfc.client import Client, Connection
from dfsfuse.cli.dfc.progress import Bar
from dfsfuse.cli.dfc.remote import Remote
from dfsfuse.cli.output import complain, human_size, printable, write_json, write_line
from dfsfuse.cli.reports import AlreadyReported
from dfsfuse.errors import DfsError, IncompleteError
from dfsfuse.namespace.map.transactions import MapStore
from dfsfuse.upkeep.heal import state as heal_state
from dfsfuse.upkeep.heal.healing import Healer
from dfsfuse.upkeep.heal.levels import wait_until_level
from dfsfuse.upkeep.heal.progress import Progress
from dfsfuse.upkeep.heal.report import Report
from dfsfuse.upkeep.heal.state import ServerSeen
from dfsfuse.upkeep.health import disks
from dfsfuse.upkeep.map_reader import MapReader

TELL_TRIES = 3
WATCH_MB_S = 32.0
LEVEL_S = 20.0
"""How long to wait for a server that is behind before healing pieces without it."""
NOT_CHECKED = (
    "Based on what the servers say they have; not all bytes were read: 'dfc verify --heal' finds copies with flipped "
    "bits."
)


def _finite(_context: click.Context, _option: click.Parameter, value: float | None) -> float | None:
    """click finds NaN to be in every range, since it is neither too small nor too large."""
    if value is not None and not math.isfinite(value):
        raise click.BadParameter(f"{value} is not a rate.")
    return value


@click.command("heal", short_help="Recreate missing copies, and move misplaced ones to their proper servers.")
@click.option(
    "--watch", is_flag=True, help="Keep running, and heal whenever a copy is missing, until Ctrl-C or SIGTERM."
)
@click.option(
    "--mb-s",
    type=click.FloatRange(min=0, min_open=True),
    callback=_finite,
    metavar="N",
    help=f"With --watch: copy at most N megabytes a second (default {WATCH_MB_S:g}).",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
@click.argument("path", default="/")
@click.pass_obj
def heal(client: Client, path: str, watch: bool, mb_s: float | None, as_json: bool) -> None:
    """Give every piece of PATH and everything below it (default: all files) its two copies, on the servers where they
    belong, as far as those answer. Says what was done. Mounts do the same in the background; where no mount runs,
    --watch does.

    A copy is made from the other one, which is checked against what was put. Bad copies that nobody has read are found
    by verify --heal; servers also look for them in the background.

    The exit code is 0 if everything has its two copies now, 14 if something still lacks one, and 3 if some piece has no
    available copy. With --watch it is 0 when a signal ended it.
    """
    where = remote_paths.normal(path)
    if watch:
        if where != b"/" or as_json:
            raise click.UsageError("--watch heals everything: it cannot be used with a path or --json")
        watching.watch(client, mb_s=mb_s or WATCH_MB_S)
        return
    if mb_s is not None:
        raise click.UsageError("--mb-s can only be used with --watch")
    inos = None if where == b"/" else [ino for _, ino in _files(client.remote, where)]
    connection = client.connection
    with connection.repairer(), Bar() as bar:
        report, lagging = _levelled_and_healed(connection, inos, bar)
    if as_json:
        write_json(as_dictionary(report, connection.server_names))
    else:
        for line in lines(report, connection.server_names):
            write_line(line)
        write_line(NOT_CHECKED)
    for server in sorted(lagging):
        complain(
            f"{connection.server_names[server]} does not have all of the map yet: it gets the rest while a mount is "
            "running"
        )
    for reason in report.reasons:
        complain(reason)
    if report.still_incomplete:
        _name_incomplete(client.remote, where, report)
        raise AlreadyReported(IncompleteError.exit_code)
    if report.still_lacking:
        still = "still has" if report.still_files_lacking.count == 1 else "still have"
        complain(
            f"{files(report.still_files_lacking.count)} {still} only one copy of some data: 'dfc status' shows which "
            "server is "
            "missing"
        )
    if report.unreadable:
        complain(f"{report.unreadable} records of files' data cannot be read: 'dfc fsck' says more")
    if report.still_lacking or report.unreadable:
        raise AlreadyReported(exit_codes.FOUND)


def _levelled_and_healed(connection: Connection, inos: list[int] | None, bar: Bar) -> tuple[Report, frozenset[int]]:
    """Return what was done, and the servers that do not have all of the map, although they were waited for."""
    lagging = _not_level(connection, bar)
    report = _healed(connection, inos, bar)
    # Healing changes the map too: a server may have missed those changes, and there may be no mount to send them.
    return report, lagging or _not_level(connection, bar)


def _not_level(connection: Connection, bar: Bar) -> frozenset[int]:
    bar.start(b"bringing the servers' maps up to date", None)
    return wait_until_level(connection.cluster, _pause, time.monotonic, LEVEL_S, is_whole=True)


def _healed(connection: Connection, inos: list[int] | None, bar: Bar) -> Report:
    """Survey, and heal what can be healed."""
    healer = Healer(connection.cluster, MapReader(connection.new_log()), connection.store)
    bar.start(b"looking", None)
    servers = disks.seen(connection.cluster)
    found = healer.survey(inos)
    if found.is_work or found.noted:
        bar.start(b"healing", found.bytes_to_copy)
        return _heal(connection, healer, inos, found, servers, bar)
    found.nothing_done()
    if inos is None:
        _note(connection.store, found, servers)
    return found


def _name_incomplete(remote: Remote, where: bytes, report: Report) -> None:
    """Say which files cannot be assembled, and what to do."""
    count = report.still_files_incomplete.count
    wanted = set(report.incomplete_inos)
    named = []
    for path, ino in _files(remote, where):
        if ino in wanted:
            wanted.discard(ino)
            named.append(printable(path))
        if not wanted:
            break
    more = f" and {count - len(named):,} more" if count > len(named) else ""
    complain(
        f"{files(count)} cannot be assembled from the servers that answer ({', '.join(named)}{more}): start those "
        "that are down ('dfc status' names them); files that stay incomplete are lost, unless an old disk of a "
        "server comes back"
    )


def _pause(seconds: float) -> bool:
    time.sleep(seconds)
    return False


def _note(store: MapStore, found: Report, servers: tuple[ServerSeen, ...]) -> None:
    """Record what was counted, for later queries. Skipped if another client records something first, or too few servers
    answer."""
    record = store.read(lambda view: view.get(heal_state.KEY))
    before = heal_state.decode(record)
    if before is None and not found.lacking:
        return
    state = heal_state.found_only(heal_state.beginning(before, found, time.time_ns(), servers), found)
    with contextlib.suppress(DfsError):
        store.transact(lambda tx: heal_state.claim(tx, record, state))


def _heal(
    connection: Connection,
    healer: Healer,
    inos: list[int] | None,
    found: Report,
    servers: tuple[ServerSeen, ...],
    bar: Bar,
) -> Report:
    copied = 0

    def on_progress(report: Report) -> None:
        nonlocal copied
        bar.advance(report.bytes_copied - copied)
        copied = report.bytes_copied
        if progress is not None:
            progress.told(report)

    progress = None if inos is not None else _announced(connection, found, servers)
    if progress is None:
        return healer.heal(inos, on_progress)
    with progress:
        report = healer.heal(inos, on_progress)
        progress.ended(report)
    return report


def _announced(connection: Connection, found: Report, servers: tuple[ServerSeen, ...]) -> Progress | None:
    """Announce to others that everything is being healed, replacing what a mount may have announced. None if others are
    faster."""
    store = connection.store
    for _ in range(TELL_TRIES):
        record = store.read(lambda view: view.get(heal_state.KEY))
        state = heal_state.beginning(heal_state.decode(record), found, time.time_ns(), servers)
        progress = Progress.begun(store, record, state, time.monotonic, time.time_ns)
        if progress is not None:
            return progress
    return None


def _files(remote: Remote, path: bytes) -> Iterator[tuple[bytes, int]]:
    """Yield the paths and inode numbers of all files at and below a path, each file once."""
    seen = set()
    todo = [(path, remote.existing(path, follow=False))]
    while todo:
        path, found = todo.pop()
        if stat.S_ISREG(found.mode) and found.ino not in seen:
            seen.add(found.ino)
            yield path, found.ino
        elif stat.S_ISDIR(found.mode):
            todo += [(remote_paths.join(path, name), below) for name, below in remote.entries(found.ino, path)]


def files(count: int) -> str:
    """A number of files, in words."""
    return f"{count:,} file{'' if count == 1 else 's'}"


def lines(report: Report, names: dict[int, str]) -> list[str]:
    """What was done, for people."""
    looked_at = f"{files(report.files.count)} examined"
    if not (report.copied or report.went_home or report.dropped):
        all_well = not report.still_lacking and not report.unreadable
        return [f"{looked_at}: all data has its two copies, nothing to do."] if all_well else []
    done = [f"{names[server]}: {copies(count)} made" for server, count in sorted(report.copied.items())]
    if report.went_home:
        parts = "1 part" if report.went_home == 1 else f"{report.went_home:,} parts"
        done.append(f"{parts} of files moved to the proper servers")
    if report.dropped:
        done.append(f"{copies(report.dropped, 'superfluous ')} dropped")
    if report.bad:
        done.append(f"{copies(report.bad)} found to be bad or gone")
    healed = report.files_lacking.count - report.still_files_lacking.count
    done.append(f"{looked_at}, {healed:,} healed, {human_size(report.bytes_copied)} copied.")
    return done


def copies(count: int, kind: str = "") -> str:
    """A number of copies (of some kind), in words."""
    return f"1 {kind}copy" if count == 1 else f"{count:,} {kind}copies"


def as_dictionary(report: Report, names: dict[int, str]) -> dict[str, object]:
    """The same for JSON."""
    return {
        "segments": report.segments,
        "lacked_a_copy": report.lacking,
        "healed": report.healed,
        "lack_a_copy": report.still_lacking,
        "incomplete": report.still_incomplete,
        "copies_made": {names[server]: count for server, count in sorted(report.copied.items())},
        "bytes_copied": report.bytes_copied,
        "brought_home": report.went_home,
        "copies_dropped": report.dropped,
        "bad_copies": report.bad,
        "unreadable_records": report.unreadable,
        "reasons": list(report.reasons),
    }
