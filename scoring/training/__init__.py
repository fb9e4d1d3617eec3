"""Trains the models that measure: open_clip's, and any that a JSON file describes, on pairs that its caller supplies.

Nothing here knows shards or folders: samples come by their number, and what is to be kept goes to a file that is given.
"""
