"""Studies of tasks that are not one data set learned once."""
