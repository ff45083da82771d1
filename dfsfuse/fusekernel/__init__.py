"""The kernel's FUSE protocol (linux/fuse.h, 7.31 and later), spoken over /dev/fuse. Linux only, without libfuse.

Knows nothing of dfsfuse, and could be a package by itself. A file system is a subclass of `operations.Operations`;
`mounting.mount` gives the descriptor, `session.Session` serves it.

    wire            constants and structures, under the names they have in linux/fuse.h
    requests        a request as the kernel sent it, checked as untrusted input
    values          what operations are given and give back
    operations      the interface of a file system
    replies         answers that come later, from any thread; INTERRUPT
    packing         values -> bytes
    handlers_*      one function for each kind of request
    dispatch        request -> handler -> answer; what is raised becomes an errno
    device          reading and writing /dev/fuse; notifications
    negotiation     INIT
    readers         the threads: who reads the next request
    session         one mount, served
    mounting        mount(2), fusermount3, unmounting
"""
