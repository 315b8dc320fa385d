"""What shuts a process in: namespaces, Landlock, seccomp, limits. The standard library and system calls alone."""
