"""Whether a namespace is as it should be, and putting it right."""
