"""Four real servers, two real mounts, writers, and a nemesis that injects faults: `make torture`. See `torture.run`."""
