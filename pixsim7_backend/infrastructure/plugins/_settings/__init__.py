"""What can be set: of the platform by its host, of a plugin by its operator."""
