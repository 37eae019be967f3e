"""The commands of `retrieval`, one file a family; each parses, calls the library and renders."""
