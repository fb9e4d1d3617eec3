"""The maths behind the neighbours scorer: exact search, k-means, and who is whose nearest preferred neighbour."""
