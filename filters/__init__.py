"""Judges: one file per weak source, columns in, a score and a vote (-1 drop, 0 abstain, +1 keep) out.

numpy and pyarrow only: no torch, no pixels. The label models that weigh the sources are in `label_models`.
"""
