"""An index copied to another place: to a server, from a server, verified before it serves."""
