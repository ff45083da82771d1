"""Looking at everything that a server holds, slowly, again and again."""
