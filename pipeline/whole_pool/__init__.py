"""Scorers that look at a whole pool: passes over shards, and over groups of like rows, that share files alone."""
