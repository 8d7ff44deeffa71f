"""Campaigns: runs that are killed, interrupted and damaged many times, and what came of it."""
