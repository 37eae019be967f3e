"""Compiles the kernels with numba, in a process of its own; see `retrieval.encoders.compiled.start`."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from retrieval.encoders.compiled import kernels as source
from retrieval.encoders.compiled import objects
from retrieval.encoders.compiled.byte_kernels import touch
from retrieval.encoders.compiled.places import UnusableError, alone, own_folder
from retrieval.encoders.compiled.trial import try_out


def compile_kernels() -> dict[str, tuple[str, bytes]]:
    """Symbol and machine code of each kernel, for this processor."""
    import numba.extending

    # Its types do not know the options below.
    njit: Any = numba.njit
    types: Any = numba.types
    pointers = {"b": types.int8, "B": types.uint8, "i": types.int32, "I": types.uint32, "q": types.int64}
    pointers |= {"Q": types.uint64, "f": types.float32, "d": types.float64}
    _compile_touch(numba)
    for helper in source.HELPERS:
        numba.extending.register_jitable(forceinline=helper in source.INLINED, error_model="numpy")(helper)

    def code(function: Any, kinds: str) -> tuple[str, bytes]:
        arguments = [types.int64 if kind == "n" else types.CPointer(pointers[kind]) for kind in kinds]
        # No fast math: sums must have the bits that numpy gives. No wrappers: they would need numba when loaded.
        options = {"nogil": True, "error_model": "numpy", "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
        [compiled] = njit(types.int64(*arguments), **options)(function).overloads.values()
        return compiled.fndesc.llvm_func_name, bytes(compiled.library._get_compiled_object())

    return {name: code(function, kinds) for name, (function, kinds) in source.KERNELS.items()}


def _compile_touch(numba: Any) -> None:
    """Teach numba to make an instruction of `touch`."""
    from llvmlite import ir

    def generate(context: Any, builder: Any, _signature: Any, arguments: Sequence[Any]) -> Any:
        place = builder.bitcast(builder.gep(arguments[0], [arguments[1]]), ir.IntType(8).as_pointer())
        number = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [place.type, number, number, number])
        prefetch = builder.module.declare_intrinsic("llvm.prefetch", [place.type], kind)
        builder.call(prefetch, [place, number(0), number(3), number(1)])  # to read, to keep, as data
        return context.get_dummy_value()

    @numba.extending.intrinsic  # type: ignore[untyped-decorator]
    def instruction(_context: Any, values: Any, at: Any) -> Any:
        return numba.types.none(values, at), generate

    numba.extending.overload(touch)(lambda values, at: lambda values, at: instruction(values, at))


def build(places: Sequence[Path]) -> Path:
    """Compile, try out and write the kernels, unless another process has just done so.

    What computes wrongly or crashes is not written.

    Args:
        places: Folders, the first that can be written gets the file.

    Raises:
        UnusableError: numba is missing or broken, the kernels compute wrongly, or no folder can be written.
    """
    name = objects.file_name()
    folder = own_folder(places)
    with alone(folder):
        with contextlib.suppress(FileNotFoundError, UnusableError):
            objects.read(folder / name)
            return folder / name
        try:
            codes = compile_kernels()
        except Exception as error:  # foreign code fails in any way
            raise UnusableError(f"numba does not compile: {type(error).__name__}: {error}") from error
        try_out(objects.Kernels(codes))
        return objects.write(codes, name, places)


def main() -> int:
    """Build into the folders that are given as arguments, at the lowest priority; says why not on the error stream."""
    if hasattr(os, "nice"):
        os.nice(19)
    try:
        build([Path(place) for place in sys.argv[1:]])
    except UnusableError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
