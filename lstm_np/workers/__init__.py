"""Processes on the other cores: the life of a worker, the channel and the memory that it shares.  Knows no LSTM."""


class Overtaken(Exception):
    """Another process has done the same work first, so that this one's result is not wanted any more."""
