"""Check whether a namespace is as it should be, and repair it."""
