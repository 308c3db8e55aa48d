"""Switching plugins from outside: the commands, and the local socket that they come through."""
