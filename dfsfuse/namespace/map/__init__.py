"""The namespace's map over its log: transactions, the cache, what is answered before its commit."""
