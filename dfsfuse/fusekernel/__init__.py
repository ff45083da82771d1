"""An implementation of the kernel's FUSE protocol (linux/fuse.h, 7.31 and later) over /dev/fuse. Linux only, without
libfuse.

Knows nothing about dfsfuse, and could be a separate package. A file system is a subclass of `operations.Operations`;
`mounting.mount` gives the descriptor, `session.Session` serves it.

    wire            constants and structures, with their names in linux/fuse.h
    requests        a request as the kernel sent it, checked as untrusted input
    values          arguments and results of operations
    operations      the interface of a file system
    replies         deferred answers, from any thread; INTERRUPT
    packing         values -> bytes
    handlers_*      one function for each kind of request
    dispatch        request -> handler -> answer; exceptions become errnos
    device          reading and writing /dev/fuse; notifications
    negotiation     INIT
    readers         the threads: which one reads the next request
    session         serving one mount
    mounting        mount(2), fusermount3, unmounting
"""
