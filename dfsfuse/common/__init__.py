"""What any room may use. Knows none of them."""
