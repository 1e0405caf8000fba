"""Short calls of a model that leave it as it was."""
