"""dfs-server: one of the four standalone servers. It imports nothing from dfsfuse."""

__version__ = "0.1.0"
