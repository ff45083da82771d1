"""dfc's commands, one small module for each command or for a few similar ones. `COMMANDS` is in the order of the
help."""

from __future__ import annotations

import click

from dfsfuse.cli.dfc.commands.folders import mkdir, mv, rm
from dfsfuse.cli.dfc.commands.fsck import fsck
from dfsfuse.cli.dfc.commands.get import get
from dfsfuse.cli.dfc.commands.heal import heal
from dfsfuse.cli.dfc.commands.help import help_
from dfsfuse.cli.dfc.commands.listing import list_
from dfsfuse.cli.dfc.commands.put import put
from dfsfuse.cli.dfc.commands.recover import recover
from dfsfuse.cli.dfc.commands.stat import stat_
from dfsfuse.cli.dfc.commands.status import status
from dfsfuse.cli.dfc.commands.verify import verify

COMMANDS: tuple[click.Command, ...] = (
    put,
    get,
    list_,
    mkdir,
    rm,
    mv,
    stat_,
    status,
    verify,
    heal,
    fsck,
    recover,
    help_,
)
ALIASES = {"ls": "list", "dir": "list", "del": "rm", "delete": "rm", "rename": "mv"}
