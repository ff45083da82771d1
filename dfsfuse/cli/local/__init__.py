"""Four servers on this machine: `dfsmount --local` and `make run`."""
