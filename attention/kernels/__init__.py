"""The kernels, which compute attention by document: a file for each, and a table of their features."""
