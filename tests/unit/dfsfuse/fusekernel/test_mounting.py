"""Closing a mount's descriptor, which threads may still be about to use. Integration tests cover mounting."""

from __future__ import annotations

import os
import socket
import threading
from contextlib import suppress
from pathlib import Path

from support.fake_kernel import DEADLINE_S, init_body, request
from support.memory_fs import MemoryFs

from dfsfuse.fusekernel import wire
from dfsfuse.fusekernel.mounting import Mount
from dfsfuse.fusekernel.session import Session


def test_a_session_that_was_cut_off_never_uses_a_file_that_gets_its_descriptor(tmp_path: Path) -> None:
    """A thread is blocked in read(2) on the descriptor's number."""
    kernel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    mount = Mount(tmp_path, theirs.detach())
    session = Session(mount.descriptor, MemoryFs())
    with kernel:
        kernel.settimeout(DEADLINE_S)
        kernel.send(request(wire.FUSE_INIT, 2, body=init_body()))
        session.negotiate()
        kernel.recv(1000)
        before = set(threading.enumerate())
        serving = threading.Thread(target=session.serve)
        serving.start()
        kernel.send(request(wire.FUSE_STATFS, 4))
        kernel.recv(1000)
        readers = [thread for thread in set(threading.enumerate()) - before if thread.name.startswith("fuse-")]
        session.cut_off()
        serving.join(DEADLINE_S)
        mount.close()
        path = tmp_path / "kept"
        path.write_bytes(b"kept for later")
        descriptors = [os.open(path, os.O_RDWR) for _ in range(8)]
        try:
            with suppress(BrokenPipeError):  # the thread was not reading yet, and has seen the end
                kernel.send(request(wire.FUSE_STATFS, 6))
            for reader in readers:
                reader.join(DEADLINE_S)
                assert not reader.is_alive()
            assert path.read_bytes() == b"kept for later"
            assert [os.lseek(descriptor, 0, os.SEEK_CUR) for descriptor in descriptors] == [0] * 8
            assert kernel.recv(1000) == b"", "the connection must have ended"
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
