"""The database for plugins in a jail: a driver inside, which asks; executors in the host, which decide."""
