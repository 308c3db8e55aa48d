"""Requests of community plugins to the outside: to granted hosts, at addresses that are public."""
