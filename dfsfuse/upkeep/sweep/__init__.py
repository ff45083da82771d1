"""Pieces and sessions that nobody needs any more go."""
