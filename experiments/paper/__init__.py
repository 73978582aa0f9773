"""One script a table or figure: runs what it needs, or reuses it, then reads the records alone."""
