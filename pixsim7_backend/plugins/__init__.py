"""The first-party plugins: one folder per feature of the backend, found and loaded by the plugin manager."""
