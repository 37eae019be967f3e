"""Other uses of an index: near-equal documents, documents like one, clusters and a map."""
