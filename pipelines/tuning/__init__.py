"""Choosing the settings of an index by measurement: with judgements, or by likeness to the most careful search."""
