"""dfsfuse: the client library, the commands and the mount. One folder on four servers."""

__version__ = "0.1.0"
