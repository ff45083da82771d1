"""The pieces that a server holds: files, tables of small ones, quarantine."""
