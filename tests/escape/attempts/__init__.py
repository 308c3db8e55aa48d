"""What a hostile plugin does, as plain functions: each returns what it got, or raises what kept it from that.

This package is the hostile plugin's: it is copied into its folder, and knows nothing but Python. The same functions
run in a child process of the host that nothing confines, to show what they are worth.
"""
