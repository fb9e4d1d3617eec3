"""Bytes, wherever they lie: files and object stores, archives, locks, and what is done where writing fails."""
