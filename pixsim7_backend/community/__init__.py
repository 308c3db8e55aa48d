"""What community plugins get of this backend, as far as owners open it and operators grant it."""
