"""The command `dfc`: its commands, its prompt, and what they show."""
