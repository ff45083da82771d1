"""File system operations on records: directories, renames, inodes, locks, as functions on a transaction."""
