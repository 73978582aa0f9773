"""Studies of what the imperfections of a device do to learning."""
