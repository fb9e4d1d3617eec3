"""Runs: one command per file; the only code that reads configs and command lines."""
