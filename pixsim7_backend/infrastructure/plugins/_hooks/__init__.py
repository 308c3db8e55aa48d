"""Events and lifecycle hooks: who is called when, for how long, and what becomes of errors."""
