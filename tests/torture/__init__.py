"""Four real servers, two real mounts, writers, and a nemesis that breaks things: `make torture`. See `torture.run`."""
