"""Chooses the binding for a mount: the kernel binding where it works, else fusepy, with the reason.

Examines this machine (the system, /dev/fuse, fusermount3), imports no binding, mounts nothing. No threads.
"""

from __future__ import annotations

import os
import platform
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Final

from dfsfuse.fusekernel import mounting
from dfsfuse.mount import libfuse
from dfsfuse.mount.options import MountOptions

KERNEL_MIN: Final = (5, 4)
"""Linux 5.4 speaks FUSE 7.31, the oldest version that the kernel binding supports."""


def kernel_refusal(
    *,
    system: str = sys.platform,
    release: str | None = None,
    device: Path = libfuse.DEVICE,
    is_root: bool | None = None,
) -> str:
    """Why the kernel binding cannot be used on this machine; empty if it can."""
    if system != "linux":
        return f"it requires Linux, and this is {system}"
    numbers = re.match(r"(\d+)\.(\d+)", platform.release() if release is None else release)
    if numbers is not None and (int(numbers[1]), int(numbers[2])) < KERNEL_MIN:
        return f"it needs Linux {'.'.join(map(str, KERNEL_MIN))}, and this is {numbers[0]}"
    if not device.exists():
        return f"{device} is missing"
    if not (os.geteuid() == 0 if is_root is None else is_root) and mounting.fusermount() is None:
        return "fusermount3 is missing"
    return ""


def choose(asked: MountOptions, refusal: str | None = None) -> MountOptions:
    """The options with `binding` set to `kernel` or `fusepy`. `refusal` is for tests."""
    if asked.fallback is None:
        return asked
    why = kernel_refusal() if refusal is None else refusal
    if why:
        return replace(asked.fallback, why_fusepy=f"the kernel binding cannot be used: {why}")
    return replace(asked, binding="kernel", fallback=None)


def versions() -> str:
    """One line about both bindings, as a mount on this machine would use them; the default first."""
    why = kernel_refusal()
    if why:
        return f"{libfuse.versions()}; binding kernel: {why}"
    return f"binding kernel, Linux {platform.release()}; {libfuse.versions()}"
