"""`dfc help`: explains the commands. The prompt prints its own list, since it has words that are not commands."""

from __future__ import annotations

import click

from dfsfuse.cli.output import write_line


@click.command("help", short_help="Explain the commands briefly, or one COMMAND in full.")
@click.argument("command", required=False)
@click.pass_context
def help_(ctx: click.Context, command: str | None) -> None:
    """Explain the commands briefly, or one COMMAND in full."""
    above = ctx.parent
    assert above is not None and isinstance(above.command, click.Group)
    write_line(help_of(above, [command] if command else []))


def help_of(group: click.Context, words: list[str]) -> str:
    """The help of the group that this context belongs to, or of the command that the words name. Raises UsageError."""
    assert isinstance(group.command, click.Group)
    if not words:
        return group.get_help()
    name, command, _rest = group.command.resolve_command(group, words)
    assert command is not None
    with command.make_context(name, ["--help"], parent=group, resilient_parsing=True) as below:
        return command.get_help(below)
