"""Moves: shards -> batches -> score tables -> votes -> decisions -> shards, as Beam pipelines over shards."""
