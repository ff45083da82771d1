"""Other file systems as columns of the benchmark, each with all its servers on this machine.

Only installed ones take part (`make bench-peers` installs all). Every peer keeps two copies of each byte, except
sshfs, which has one server. By default MooseFS, SeaweedFS and JuiceFS answer close() before anything is on a disk.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Final

import click
from bench.peers.glusterfs import GlusterFs
from bench.peers.juicefs import JuiceFs
from bench.peers.moosefs import MooseFs
from bench.peers.peer import Peer
from bench.peers.seaweedfs import SeaweedFs
from bench.peers.sshfs import SshFs
from rich.console import Console

PEERS: Final[Sequence[type[Peer]]] = (MooseFs, SeaweedFs, JuiceFs, GlusterFs, SshFs)


def chosen(names: str, console: Console) -> Iterator[type[Peer]]:
    """Return the peers with these names, or all installed ones for "all"; prints which are left out.

    Raises click.BadParameter if a name is unknown, or if a named peer cannot be measured here.
    """
    by_name = {peer.name.lower(): peer for peer in PEERS}
    wanted = list(by_name) if names == "all" else [name.strip().lower() for name in names.split(",") if name.strip()]
    for name in wanted:
        if name not in by_name:
            raise click.BadParameter(f"{name!r} is none of {', '.join(by_name)}", param_hint="--peers")
        why = _why_not(by_name[name])
        if not why:
            yield by_name[name]
        elif names == "all":
            console.print(f"{by_name[name].name} is left out: {why}")
        else:
            raise click.BadParameter(f"{name}: {why}", param_hint="--peers")


def _why_not(peer: type[Peer]) -> str:
    if os.geteuid() != 0:
        return "needs root, for a network namespace"
    if missing := peer.missing():
        return f"not installed: {', '.join(missing)} ('make bench-peers' installs them)"
    return ""
