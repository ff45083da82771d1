"""Which binding a mount uses."""

from __future__ import annotations

from pathlib import Path

import pytest

from dfsfuse.fusekernel import mounting
from dfsfuse.mount.choice import choose, kernel_refusal, versions
from dfsfuse.mount.options import parse


def test_where_the_kernel_binding_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = tmp_path / "fuse"
    device.touch()
    monkeypatch.setattr(mounting, "fusermount", lambda: None)

    def refusal(system: str = "linux", release: str = "6.1.0-13-amd64", *, is_root: bool = True) -> str:
        return kernel_refusal(system=system, release=release, device=device, is_root=is_root)

    assert refusal() == ""
    assert refusal(release="5.4.0") == ""
    assert "this is darwin" in refusal(system="darwin")
    assert "needs Linux 5.4, and this is 4.19" in refusal(release="4.19.0-25")
    assert refusal(is_root=False) == "fusermount3 is missing"
    monkeypatch.setattr(mounting, "fusermount", lambda: "/usr/bin/fusermount3")
    assert refusal(is_root=False) == ""
    device.unlink()
    assert refusal() == f"{device} is missing"


def test_auto_is_the_kernel_binding_or_else_fusepy_with_its_own_defaults() -> None:
    asked = parse(["attr_timeout=7"], as_root=False)
    kernel, fusepy = choose(asked, ""), choose(asked, "it is raining")
    assert (kernel.binding, kernel.why_fusepy) == ("kernel", "")
    assert (fusepy.binding, fusepy.why_fusepy) == ("fusepy", "the kernel binding cannot be used: it is raining")
    assert "big_writes" not in kernel.fuse
    assert fusepy.fuse["big_writes"] is True
    assert kernel.fuse["attr_timeout"] == fusepy.fuse["attr_timeout"] == "7"


def test_a_requested_binding_is_used() -> None:
    for name in ("kernel", "fusepy"):
        assert choose(parse([f"binding={name}"], as_root=False), "it is raining").binding == name
    by_need = choose(parse(["allow_root"], as_root=False), "")
    assert (by_need.binding, by_need.why_fusepy) == ("fusepy", "only libfuse supports allow_root")


def test_both_are_told() -> None:
    assert "binding kernel" in versions()
    assert "fusepy 3." in versions()
