"""Fuzzing: random input for everything that reads what others wrote, and for what has to hold of any input.

A target is a function that takes bytes. It returns when the outcome is one that is promised (a result within its
bounds, or an error of the class that the docstring names) and raises when it is not. `__main__` runs them all, for
minutes or for hours; the same functions run under atheris, which looks for inputs that reach new code, and where that
is not installed under hypothesis.
"""
