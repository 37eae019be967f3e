"""Compression of the vectors of a live index, measured before and after."""
