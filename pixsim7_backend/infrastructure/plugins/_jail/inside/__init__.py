"""What runs in the jail itself, around the plugin."""
