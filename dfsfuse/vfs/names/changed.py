"""What another mount has changed, expressed as inodes and names instead of keys. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from dfsfuse.common.events import Changed
from dfsfuse.namespace.records import keys


def changes_of(changed_keys: Iterable[bytes]) -> list[Changed]:
    """Translate these keys, as far as the change is visible to someone who looks at files."""
    changes = []
    for key in changed_keys:
        if key.startswith(b"d/"):
            changes.append(Changed(keys.number_in(key), keys.name_of(key)))
        elif key.startswith((b"i/", b"e/")):
            changes.append(Changed(keys.number_in(key), is_data=key.startswith(b"e/")))
    return changes
