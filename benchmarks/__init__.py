"""Measurements of the platform; run with `make bench`."""
