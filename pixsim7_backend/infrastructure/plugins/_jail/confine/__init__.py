"""What the kernel is told about a jail, by itself, before its plugin runs: limits, user, Landlock, seccomp."""
