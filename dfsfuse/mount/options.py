"""The options after `-o`: comma-separated mount options, checked, with our defaults filled in.

Knows every option by name: those of dfsfuse (implemented elsewhere), and those of FUSE and the kernel that are passed
through. An unknown option is an error that lists the known ones, because a misspelt `durability` that is silently
ignored would lose data. Uses no files and no environment variables.
"""

from __future__ import annotations

import difflib
import errno
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from dfsfuse.data.block_cache import DEFAULT_CACHE_BYTES
from dfsfuse.errors import DfsError
from dfsfuse.vfs.health.incomplete import Policy

MIB = 1024 * 1024
MAX_REQUEST_BYTES = 128 * 1024
"""The largest read and write that libfuse 2 supports: its buffer is 132 KiB, and it does not negotiate more pages."""
LOCK_TIMEOUT_MIN_S = 1.0
"""With less than this, a short network outage would cost locks."""
COMMIT_MIN_S, COMMIT_MAX_S = 0.1, 300.0
"""Less would make every write a batch; more would be an unusual promise."""
_UNITS = {"": 1, "K": 1024, "M": MIB, "G": 1024 * MIB}


class OptionError(DfsError):
    """An unknown option, or a value that it cannot have."""

    exit_code = 2


@dataclass(frozen=True)
class MountOptions:
    """The options of one mount."""

    durability: str = "close"
    """`close`: close() returns when everything is on disk. `fsync`: only fsync() waits."""
    binding: str = "auto"
    cache_bytes: int = DEFAULT_CACHE_BYTES
    log_file: Path | None = None
    lock_timeout_s: float = 10.0
    """When this mount has sent no heartbeat for this long, other mounts may take its locks."""
    commit_s: float = 1.0
    """Data written to a file that stays open is saved when it is this old."""
    unmount_timeout_s: float = 30.0
    """When the mount ends and nothing could be saved for this long, unsaved data is kept in a local folder."""
    wait_s: float = 0.0
    """How long an operation waits for servers to return, rather than fail."""
    heal_mb_s: float = 32.0
    """Missing copies are recreated in the background, at no more than this many megabytes a second; 0: not at all."""
    nonempty: bool = False
    atime_rule: str = "relatime"
    """How reading affects access times: `relatime`, `strictatime`."""
    diratime: bool = True
    """Whether listing a folder changes its access time."""
    incomplete: str = "suffix"
    """How a file that cannot be assembled appears: `suffix`, `eio`, `eremoteio`."""
    fuse: Mapping[str, str | bool] = field(default_factory=dict)
    """The options for libfuse and the kernel: `name` or `name=value`."""
    fallback: MountOptions | None = None
    """With `binding=auto`: the options for fusepy, used if the kernel binding (which the other fields are for) does not
    work."""
    why_fusepy: str = ""
    """Why fusepy was chosen, in one sentence for the log."""

    @property
    def read_only(self) -> bool:
        return bool(self.fuse.get("ro"))

    @property
    def policy(self) -> Policy:
        """The same, as the Vfs expects it."""
        return Policy.MARK if self.incomplete == "suffix" else Policy.REFUSE

    @property
    def eio(self) -> int:
        """The error number that programs get instead of EIO. EREMOTEIO stops programs that continue after EIO and treat
        what they could not read as removed."""
        return errno.EREMOTEIO if self.incomplete == "eremoteio" else errno.EIO

    @property
    def atime(self) -> str:
        """The rule that applies: no changes on a read-only mount."""
        return "noatime" if self.read_only or self.fuse.get("noatime") else self.atime_rule


def named(options: MountOptions, source: str) -> MountOptions:
    """The options with `source` for the source column of the mount table, unless `fsname` was given."""
    return replace(options, fuse={"fsname": source, **options.fuse})


def _choice(*allowed: str) -> Callable[[str, str], str]:
    def check(name: str, value: str) -> str:
        if value not in allowed:
            raise OptionError(f"-o {name}={value}: expected {' or '.join(allowed)}")
        return value

    return check


def _size(name: str, value: str) -> str:
    match = re.fullmatch(r"(\d+)([KMG]?)(?:i?B)?", value, re.IGNORECASE)
    if match is None:
        raise OptionError(f"-o {name}={value}: expected a size, like 64M or 1G")
    return str(int(match[1]) * _UNITS[match[2].upper()])


def _seconds(name: str, value: str) -> str:
    if re.fullmatch(r"\d+(\.\d+)?", value) is None:
        raise OptionError(f"-o {name}={value}: expected a number of seconds, like 0.3")
    return value


def _commit(name: str, value: str) -> str:
    if not COMMIT_MIN_S <= float(_seconds(name, value)) <= COMMIT_MAX_S:
        raise OptionError(f"-o {name}={value}: expected {COMMIT_MIN_S:g} to {COMMIT_MAX_S:g} seconds")
    return value


def _rate(name: str, value: str) -> str:
    if re.fullmatch(r"\d+(\.\d+)?", value) is None:
        raise OptionError(f"-o {name}={value}: expected megabytes a second, like 32; 0 for none")
    return value


def _text(name: str, value: str) -> str:
    if not value:
        raise OptionError(f"-o {name}=: expected a value")
    return value


_OWN = {
    "durability": _choice("close", "fsync"),
    "binding": _choice("auto", "kernel", "fusepy"),
    "cache": _size,
    "log": _text,
    "lock_timeout": _seconds,
    "commit": _commit,
    "unmount_timeout": _seconds,
    "wait": _seconds,
    "heal_mb_s": _rate,
    "incomplete": _choice("suffix", "eio", "eremoteio"),
}
_WITH_VALUE = {
    "attr_timeout": _seconds,
    "entry_timeout": _seconds,
    "negative_timeout": _seconds,
    "max_read": _size,
    "max_write": _size,
    "max_readahead": _size,
    "fsname": _text,
}
_FLAGS = frozenset(
    "allow_other allow_root default_permissions auto_unmount ro rw suid nosuid dev nodev exec noexec "
    "atime noatime sync async dirsync".split()
)
_OPPOSITES = {"ro": "rw", "suid": "nosuid", "dev": "nodev", "exec": "noexec", "atime": "noatime", "sync": "async"}
_OPPOSITES |= {right: left for left, right in _OPPOSITES.items()} | {
    "allow_other": "allow_root",
    "allow_root": "allow_other",
}
_IGNORED = frozenset(
    "defaults auto noauto user nouser users owner noowner group nogroup nofail _netdev comment uhelper "
    "silent loud".split()
)
"""Words in /etc/fstab that are meant for mount(8), not for us."""
_ATIME_RULES = frozenset(("relatime", "strictatime"))
_DIRATIME = frozenset(("diratime", "nodiratime"))


def known() -> list[str]:
    """Every option, for a message."""
    own = ["durability=close|fsync", "incomplete=suffix|eio|eremoteio", "binding=auto|kernel|fusepy"]
    own += [
        "cache=SIZE",
        "log=FILE",
        "lock_timeout=SECONDS",
        "commit=SECONDS",
        "unmount_timeout=SECONDS",
        "wait=SECONDS",
        "heal_mb_s=N",
        "nonempty",
        *sorted(_ATIME_RULES | _DIRATIME),
    ]
    return own + [f"{name}=..." for name in _WITH_VALUE] + sorted(_FLAGS)


def parse(lists: Iterable[str], *, as_root: bool, sloppy: bool = False) -> MountOptions:
    """Parse the lists given with `-o`; later options override earlier ones. Raises `OptionError`.

    `sloppy`: unknown options are ignored, as with `mount -s`.

    Root's mount is accessible to all users, with the kernel checking permissions; a user's own mount only to that user,
    unless `-o allow_other` is given (which /etc/fuse.conf must permit).
    """
    words = [word for text in lists for word in text.split(",") if word]
    bindings = [word for word in words if word.startswith("binding=")]
    if bindings and bindings[-1] != "binding=auto":
        return _parse(words, as_root=as_root, sloppy=sloppy)
    by_fusepy = _parse([*words, "binding=fusepy"], as_root=as_root, sloppy=sloppy)
    if by_fusepy.fuse.get("allow_root"):
        return replace(by_fusepy, why_fusepy="only libfuse supports allow_root")
    by_kernel = _parse([*words, "binding=kernel"], as_root=as_root, sloppy=sloppy)
    return replace(by_kernel, binding="auto", fallback=by_fusepy)


def _parse(words: list[str], *, as_root: bool, sloppy: bool) -> MountOptions:
    """Parse the options for one binding."""
    own: dict[str, str] = {}
    fuse: dict[str, str | bool] = dict(_defaults(as_root, by_kernel=_asks_for_kernel(words)))
    nonempty = False
    for word in words:
        name, equals, value = word.partition("=")
        if equals and name in _OWN:
            own[name] = _OWN[name](name, value)
        elif equals and name in _WITH_VALUE:
            fuse[name] = _WITH_VALUE[name](name, value)
        elif not equals and name in _FLAGS:
            fuse.pop(_OPPOSITES.get(name, ""), None)
            fuse[name] = True
        elif word in _ATIME_RULES:
            fuse.pop("noatime", None)
            own["atime"] = word
        elif word in _DIRATIME:
            own["diratime"] = word
        elif word == "nonempty":
            nonempty = True
        elif word == "remount":
            raise OptionError("-o remount: options cannot be changed while mounted: unmount, then mount again")
        elif not (sloppy or name in _IGNORED or name.startswith(("x-", "X-"))):
            raise OptionError(_unknown(word))
    fuse.pop("rw", None)
    if _asks_for_kernel(words) and fuse.get("allow_root"):
        raise OptionError("-o allow_root: only libfuse supports it; use allow_other, or binding=fusepy")
    return MountOptions(
        durability=own.get("durability", "close"),
        binding=own.get("binding", "auto"),
        cache_bytes=int(own.get("cache", DEFAULT_CACHE_BYTES)),
        log_file=Path(own["log"]).absolute() if "log" in own else None,
        lock_timeout_s=max(float(own.get("lock_timeout", MountOptions.lock_timeout_s)), LOCK_TIMEOUT_MIN_S),
        commit_s=float(own.get("commit", MountOptions.commit_s)),
        unmount_timeout_s=float(own.get("unmount_timeout", MountOptions.unmount_timeout_s)),
        wait_s=float(own.get("wait", MountOptions.wait_s)),
        heal_mb_s=float(own.get("heal_mb_s", MountOptions.heal_mb_s)),
        nonempty=nonempty,
        atime_rule=own.get("atime", MountOptions.atime_rule),
        diratime=own.get("diratime") != "nodiratime",
        incomplete=own.get("incomplete", MountOptions.incomplete),
        fuse=fuse,
    )


def _unknown(word: str) -> str:
    """The message for an unknown option, with the one that was probably meant."""
    name, equals, _value = word.partition("=")
    expected = {text.partition("=")[0]: text for text in known()}
    if name in expected:
        return f"-o {word}: this option takes no value" if equals else f"-o {word}: expected {expected[name]}"
    meant = difflib.get_close_matches(name.lower(), expected, n=1)
    hint = f" Did you mean {expected[meant[0]]}?" if meant else ""
    return f"-o {word}: unknown option.{hint} Known options: {', '.join(known())}"


def _asks_for_kernel(words: list[str]) -> bool:
    bindings = [word for word in words if word.startswith("binding=")]
    return bindings[-1:] == ["binding=kernel"]


def _defaults(as_root: bool, *, by_kernel: bool) -> dict[str, str | bool]:
    defaults: dict[str, str | bool] = {
        "subtype": "dfs",
        "default_permissions": True,
        "big_writes": True,
        "max_write": str(MAX_REQUEST_BYTES),
        "max_read": str(MAX_REQUEST_BYTES),
        # To a path-based binding, hard links are different files: the kernel must ask each time.
        "attr_timeout": "0",
        "entry_timeout": "0.3",
        "negative_timeout": "0",
        "use_ino": True,
    }
    if by_kernel:
        # Here hard links are one inode, and the kernel is told what other mounts change.
        defaults |= {"max_write": str(MIB), "max_read": str(MIB), "attr_timeout": "1", "entry_timeout": "1"}
        del defaults["big_writes"], defaults["use_ino"]
    if as_root:
        defaults["allow_other"] = True
    return defaults
