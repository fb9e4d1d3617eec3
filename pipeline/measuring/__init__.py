"""Scoring a pool: samples in batches through every scorer, shard after shard, into score tables."""
