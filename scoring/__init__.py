"""Measures: one file per scorer, a batch of pictures and captions in, columns of numbers out.

Everything that needs torch lives here. Nothing here reads or writes files of its own, knows Beam, or knows filters.
"""
