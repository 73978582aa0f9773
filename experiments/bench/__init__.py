"""The speed of a training step over the matrix products it cannot avoid, beside its error: `make bench`."""
