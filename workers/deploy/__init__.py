"""A deploy, from its claim to its outcome."""
