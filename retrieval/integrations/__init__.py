"""Adapters for frameworks, one file each: `langchain`, `llamaindex`, `haystack`.

Each file needs its framework and is imported by name; nothing else imports them.
"""
