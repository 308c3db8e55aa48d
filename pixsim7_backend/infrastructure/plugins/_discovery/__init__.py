"""Finding plugins, and reading what their manifests claim without running them."""
