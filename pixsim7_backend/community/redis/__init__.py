"""Redis for community plugins: named commands, on keys of their own."""
