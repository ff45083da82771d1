"""Which server is which: the record of a namespace's four servers in the map, with which a config must agree.

Pieces and batches name servers by id, the position in the client's config. A client that lists them in another order
would look for every piece at the wrong server, so the namespace remembers each id's name, and the identity of the
folder that answered there last. A folder's identity is made with it: another one is a new disk, to be filled again.
The namespace itself has an identity too, made at random by the first client, by which two mounts know that they show
the same files.

Pure: records, sentences, and functions of a transaction; no clock, no servers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from dfsfuse.common import codec
from dfsfuse.common.codec import Codec
from dfsfuse.errors import WrongServerError
from dfsfuse.namespace.map.transactions import Transaction, View
from dfsfuse.namespace.records import keys

FORMAT: Final = 1
UNKNOWN: Final = b""
"""The identity of a server that no client has met yet."""


class Member(msgspec.Struct, frozen=True, array_like=True):
    """One of the four servers, as this namespace knows it."""

    name: str
    identity: bytes = UNKNOWN
    replaced_ns: int = 0
    """When it was first seen with this identity, if it had another one before; by a client's clock."""
    faults: int = 0
    """How often it gave an answer that was not what it should be, as far as clients have reported."""
    fault_ns: int = 0
    fault: str = ""
    """When that was last, and what it was."""


class Members(msgspec.Struct, frozen=True, array_like=True):
    """All four, in the order of their ids."""

    format: int
    servers: tuple[Member, ...]
    namespace: bytes = UNKNOWN
    """The namespace's identity."""


_records = Codec(Members, "the servers", FORMAT)


def find(view: View) -> dict[int, Member]:
    """Return the servers by id; none in a namespace that has no record of them yet. Raises OSError (EIO)."""
    return decode(view.get(keys.SERVERS))


def namespace_identity(view: View) -> bytes:
    """Return the namespace's identity; empty if it has none yet. Raises OSError (EIO)."""
    return _decoded(view.get(keys.SERVERS)).namespace


def decode(data: bytes | None) -> dict[int, Member]:
    """Decode the servers in the record. Raises OSError (EIO)."""
    return dict(enumerate(_decoded(data).servers, start=1))


def _decoded(data: bytes | None) -> Members:
    return Members(FORMAT, ()) if data is None else _records.decode(data)


def have_forgotten_nothing(view: View, identities: Mapping[int, bytes], servers: frozenset[int]) -> bool:
    """Whether all that these servers may have forgotten is part of this state: the folders that answer there now
    (`identities`) are those that the namespace knows.

    What a server held before its folder was replaced was chosen before its new folder was written down, and so before
    this state.
    """
    known = find(view)
    return all(id in known and known[id].identity == identities.get(id) for id in servers)


def check(known: Mapping[int, Member], names: Mapping[int, str]) -> None:
    """Raise `WrongServerError` if the config names other servers than the namespace has, or in another order."""
    if not known or all(known[id].name == name for id, name in names.items()):
        return
    right = [known[id].name for id in sorted(known)]
    for id, name in sorted(names.items()):
        if known[id].name != name and name not in right:
            raise WrongServerError(
                f"the client's config calls item {id} of servers {name}, and this namespace knows no such server: "
                f"it is on {', '.join(right)}; correct that name"
            )
    raise WrongServerError(
        f"the client's config lists the servers as {', '.join(names[id] for id in sorted(names))}, and this namespace "
        f"is on {', '.join(right)}, in this order: put the lines of 'servers' into it"
    )


def meet(
    transaction: Transaction,
    names: Mapping[int, str],
    identities: Mapping[int, bytes],
    now_ns: int,
    new_identity: bytes = UNKNOWN,
) -> frozenset[int]:
    """Write down which folders answer now. Returns the servers that had another one before: their disks are new.

    A namespace that has no identity yet gets `new_identity`.

    Changes nothing if all is known. Raises `WrongServerError`.
    """
    known = find(transaction)
    check(known, names)
    owners = {member.identity: id for id, member in known.items() if member.identity != UNKNOWN}
    replaced = set()
    met = {id: known.get(id) or Member(name) for id, name in names.items()}
    for id, identity in identities.items():
        member = met[id]
        if member.identity == identity:
            continue
        owner = owners.get(identity)
        if owner is not None and identities.get(owner, identity) == identity:
            raise WrongServerError(
                f"{member.name} has the identity of {known[owner].name}: its folder is a copy of that one's; "
                "start it on a folder of its own, or on an empty one, which is filled from the others"
            )
        if member.identity == UNKNOWN:
            met[id] = msgspec.structs.replace(member, identity=identity)
        else:
            met[id] = msgspec.structs.replace(member, identity=identity, replaced_ns=now_ns)
            replaced.add(id)
    namespace = namespace_identity(transaction)
    if met != known or namespace != (namespace or new_identity):
        _put(transaction, met, namespace or new_identity)
    return frozenset(replaced)


def note_faults(transaction: Transaction, faults: Mapping[int, tuple[int, int, str]]) -> None:
    """Add to the servers' records what they did wrong since it was last noted: how often, when last (ns), and what."""
    known = find(transaction)
    for id, (times, last_ns, text) in faults.items():
        if id in known and times:
            known[id] = msgspec.structs.replace(
                known[id], faults=known[id].faults + times, fault_ns=last_ns, fault=text
            )
    if known:
        _put(transaction, known, namespace_identity(transaction))


def _put(transaction: Transaction, members: Mapping[int, Member], namespace: bytes) -> None:
    record = Members(FORMAT, tuple(members[id] for id in sorted(members)), namespace)
    transaction.put(keys.SERVERS, codec.encode(record))
