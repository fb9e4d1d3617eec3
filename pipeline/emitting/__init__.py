"""Emitting: kept samples leave as shards that a trainer can read."""
