"""Is anything lost when a process is killed? `python -m benchmarks.reliability` kills some hundred of them and looks.

``operations`` says what is killed, ``worker`` is the process that is, ``killing`` chooses the moment and strikes,
``contents`` reads an index, ``checks`` says what is wrong with it, ``trial`` puts one kill together, ``report`` makes
the page. Nothing of it is in the product.
"""
