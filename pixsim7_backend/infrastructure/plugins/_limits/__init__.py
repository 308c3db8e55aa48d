"""How much of a plugin its clients may ask for: a rate for each of them, and how many requests at once."""
