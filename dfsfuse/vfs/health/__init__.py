"""How many copies of a file can be had, and what a program is shown of a file that is incomplete."""
