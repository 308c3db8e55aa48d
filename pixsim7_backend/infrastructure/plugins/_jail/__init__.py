"""Community plugins run here: each in a process of its own, which the kernel confines."""
