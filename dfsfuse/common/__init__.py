"""Code that any package may use. It depends on none of them."""
