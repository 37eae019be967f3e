"""Training a cross-encoder from ranking lists and writing it as a graph."""
