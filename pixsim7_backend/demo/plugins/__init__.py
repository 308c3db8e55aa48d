"""Two plugins that only the demo's private server loads: adding a folder adds a feature."""
