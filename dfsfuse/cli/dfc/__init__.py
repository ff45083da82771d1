"""The command `dfc`: its commands, its prompt, and its output."""
