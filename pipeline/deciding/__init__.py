"""Deciding: what is learned from all score tables, and then kept, dropped or rejected in each of them."""
