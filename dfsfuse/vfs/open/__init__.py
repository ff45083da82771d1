"""Files that are open, and their handles."""
