"""A plugin's code: importing it, importing it anew, and showing where in it something went wrong."""
