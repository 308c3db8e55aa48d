"""What should run, in which order, and why not: plans, and the change from one to another. Pure."""
