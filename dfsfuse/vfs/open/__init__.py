"""Open files and their handles."""
