"""dfs-server: one standalone server of the four. It imports nothing of dfsfuse."""

__version__ = "0.1.0"
