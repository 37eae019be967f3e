"""The inner loops of encoding in machine code: the same vectors as with numpy, to the last bit, many times faster.

`start` decides when they are used, `build` compiles them in a process of its own, `objects` loads what it made from one
of the `places` that only the user can write to, and `kernels` is the code. On top of them a table of words (`words`)
with the tokens (`pieces`) and BM25 terms (`terms`) of each, so that a text is a scan, a look-up for each word and a sum
over rows.
"""

from retrieval.encoders.compiled.start import CompiledStatus, compiled_status, find_compiled, prepare_compiled

__all__ = ["CompiledStatus", "compiled_status", "find_compiled", "prepare_compiled"]
