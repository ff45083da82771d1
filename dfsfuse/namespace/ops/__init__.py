"""What a file system does with its records: directories, renames, inodes, locks, as functions on a transaction."""
