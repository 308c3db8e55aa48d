"""Who owns what: everything that a plugin registered, and what of it would not go."""
