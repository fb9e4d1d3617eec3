"""The labelling page: one HTML file that asks about samples worth asking about."""
