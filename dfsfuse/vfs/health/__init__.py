"""How many copies of a file are reachable, and what a program sees of an incomplete file."""
