"""Names, folders and attributes."""
