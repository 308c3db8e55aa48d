"""Who did it: what is counted of each plugin, whose code blocks the loop, and when enough is enough."""
