"""Processes on the other cores: the life of a worker, and the channel between two processes."""
