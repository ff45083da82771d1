"""Locks across mounts, and the session that holds them."""
