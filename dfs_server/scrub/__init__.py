"""The scrub: slowly checks everything that a server holds, again and again."""
