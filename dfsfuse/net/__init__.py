"""Connections to the four servers, and requests to several at once."""
