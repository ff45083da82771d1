"""Two copies of every piece: what lacks one gets it."""
