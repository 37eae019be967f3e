"""The negation suite: twins in one index, asked of both stages, against a stored baseline."""
