"""Ingest by many processes: a driver lists parts of a source, workers write them, the driver commits."""
