"""Plugins come onto the disk and leave it: from folders, archives and checkouts, in one step."""
