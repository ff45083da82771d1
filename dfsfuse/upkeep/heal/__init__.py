"""Two copies of every piece: restores missing ones."""
