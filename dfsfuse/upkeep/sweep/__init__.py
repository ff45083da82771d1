"""Removes pieces and sessions that are no longer needed."""
