"""`dfc recover`: lists data that mounts could not save when they ended, writes it to the servers, or discards it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

import click

from dfsfuse.cli import exit_codes
from dfsfuse.cli.dfc.client import Client
from dfsfuse.cli.output import (
    complain,
    counted,
    human_size,
    iso_time,
    local_time,
    printable,
    table,
    write_json,
    write_line,
    write_lines,
)
from dfsfuse.mount import state_folders
from dfsfuse.upkeep.recovery import kept as kept_folders
from dfsfuse.upkeep.recovery.apply import Applier, Done
from dfsfuse.upkeep.recovery.kept import Kept
from dfsfuse.upkeep.recovery.manifest import KeptError, KeptFile
from dfsfuse.upkeep.recovery.plan import Action


@click.command("recover", short_help="Restore data that a mount could not save when it ended.")
@click.option("--apply", "is_to_apply", is_flag=True, help="Write it to the servers, never over newer data.")
@click.option("--discard", "is_to_discard", is_flag=True, help="Remove it. Requires an ID, or --all.")
@click.option("--all", "all_of_them", is_flag=True, help="With --discard: all kept data.")
@click.option("--json", "as_json", is_flag=True, help="Print the list as JSON, for programs.")
@click.argument("ids", metavar="[ID]...", nargs=-1)
@click.pass_obj
def recover(
    client: Client, ids: tuple[str, ...], is_to_apply: bool, is_to_discard: bool, all_of_them: bool, as_json: bool
) -> int:
    """List data that mounts of this machine could not save when they ended, because the servers were down. It is kept
    in a local folder.

    With --apply it is written to the servers: into its file if that is unchanged since then, at the end if the data was
    appended, otherwise into a new file next to it, `NAME [recovered DATE]`. What was done is reported, and restored
    data is removed from the local folder.
    """
    if is_to_apply and is_to_discard:
        raise click.UsageError("--apply and --discard cannot be used together")
    if is_to_discard and not ids and not all_of_them:
        raise click.UsageError("--discard requires an ID, or --all")
    found, unreadable = kept_on_this_machine()
    for error in unreadable:
        complain(str(error))
    chosen = _chosen(found, ids)
    if is_to_discard:
        for one in chosen:
            with one.locked() as held:
                held.discard()
            write_line(f"{one.id}: discarded, {counted(len(one.manifest.files), 'file')}")
        return exit_codes.DONE
    if is_to_apply:
        return _apply(client, chosen)
    if as_json:
        write_json([as_dictionary(one) for one in chosen])
    else:
        write_lines(listing(chosen))
    return exit_codes.FOUND if unreadable else exit_codes.DONE


def kept_on_this_machine() -> tuple[list[Kept], list[KeptError]]:
    """Everything that this user's mounts have kept, and why some of it cannot be read. A folder that another user
    created in the place of this user's is ignored."""
    kept: list[Kept] = []
    errors: list[KeptError] = []
    for folder in filter(state_folders.is_own, state_folders.candidates()):
        more, wrong = kept_folders.found_in(folder / kept_folders.FOLDER)
        kept += more
        errors += wrong
    return kept, errors


def _chosen(found: Sequence[Kept], ids: Sequence[str]) -> list[Kept]:
    by_id = {one.id: one for one in found}
    unknown = [id for id in ids if id not in by_id]
    if unknown:
        raise click.UsageError(f"nothing is kept under {unknown[0]!r}; `dfc recover` lists what is")
    return [by_id[id] for id in ids] if ids else list(found)


def listing(kept: Iterable[Kept]) -> list[str]:
    """The kept data, for people."""
    lines: list[str] = []
    for one in kept:
        manifest = one.manifest
        mountpoint = printable(manifest.mountpoint)
        lines.append(f"{one.id}  {local_time(manifest.ended_ns)}  {mountpoint}  (user {manifest.namespace.user})")
        rows = [(human_size(file.size), _name(file) + _remark(file)) for file in manifest.files]
        lines += [f"  {row}" for row in table(rows, right="l")] if rows else []
    if lines:
        lines.append("'dfc recover --apply' writes it to the servers, '--discard ID' removes it.")
    return lines or ["Nothing is kept: all mounts of this user have saved everything."]


def _name(file: KeptFile) -> str:
    return printable(b"/" + file.path) if file.path is not None else f"inode {file.inode}"


def _remark(file: KeptFile) -> str:
    return f"  ({human_size(file.missing_bytes)} more could not be kept)" if file.missing_bytes else ""


def as_dictionary(kept: Kept) -> dict[str, object]:
    """The same for programs."""
    manifest = kept.manifest
    return {
        "id": kept.id,
        "folder": str(kept.folder),
        "mountpoint": manifest.mountpoint.decode(errors="backslashreplace"),
        "user": manifest.namespace.user,
        "ended": iso_time(manifest.ended_ns),
        "why": manifest.why,
        "files": [
            {"inode": file.inode, "path": _name(file), "bytes": file.size, "missing_bytes": file.missing_bytes}
            for file in manifest.files
        ],
    }


def _apply(client: Client, chosen: Sequence[Kept]) -> int:
    if not chosen:
        write_line("Nothing is kept: there is nothing to put back.")
        return exit_codes.DONE
    connection = client.connection
    here = connection.namespace()
    applier = Applier(connection.vfs, connection.segments, time.sleep)
    code = exit_codes.DONE
    for one in chosen:
        if not one.manifest.namespace.is_same_as(here):
            complain(
                f"{one.id}: this belongs to another namespace, of user {one.manifest.namespace.user}: give its config "
                "with --config"
            )
            code = code or exit_codes.FOUND
            continue
        with one.locked() as held:
            code = _apply_one(applier, held) or code
    return code


def _apply_one(applier: Applier, kept: Kept) -> int:
    code = exit_codes.DONE
    left = {file.inode: file for file in kept.manifest.files}

    def before_group(group: Sequence[KeptFile]) -> None:
        left.update({file.inode: file for file in kept.may_be_appended(group, list(left.values()))})

    try:
        for file, outcome in applier.apply(kept, kept.manifest.files, before_group):
            if isinstance(outcome, Exception):
                complain(f"{_name(file)}: {outcome}")
                code = code or exit_codes.exit_code_of(outcome)
            else:
                del left[file.inode]
                write_line(sentence(outcome))
    finally:  # also after Ctrl-C: record what was done
        kept.keep_only(list(left.values()))
    return code


def sentence(done: Done) -> str:
    """What happened to one file."""
    name, size = _name(done.file), human_size(done.file.size)
    match done.action:
        case Action.IN_PLACE:
            return f"{name}: {size} put back"
        case Action.AT_THE_END:
            return f"{name}: {size} appended"
        case Action.NOTHING if done.file.missing_bytes:
            return f"{name}: nothing of it could be kept; {human_size(done.file.missing_bytes)} are lost"
        case Action.NOTHING:
            return f"{name}: is on the servers already"
        case Action.BESIDE:
            return f"{name}: {_why_beside(done.file)}; the unsaved data is in {printable(done.beside or b'')}"


def _why_beside(file: KeptFile) -> str:
    if file.missing_bytes:
        return "was not kept completely"
    return f"{'may have been' if file.state is None else 'was'} changed or removed in the meantime"
