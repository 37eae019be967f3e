"""Compiled kernels as a file: made by `build`, checked and loaded here without numba.

The file holds machine code for one processor. Its name is a hash of everything that it depends on, so that it is never
out of date; `places` says where it may lie. Loading takes llvmlite and about 50 ms, most of them for llvmlite.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib.util
import json
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from retrieval.encoders.compiled import kernels as source
from retrieval.encoders.compiled.places import UnusableError, read_checked, write_checked

Argument = NDArray[Any] | int

_COMPILER = Path(__file__).parent / "build.py"


class Kernels:
    """Compiled kernels, called by name; they run without the interpreter's lock.

    Args:
        codes: Symbol and machine code of each kernel.
    """

    def __init__(self, codes: dict[str, tuple[str, bytes]]) -> None:
        llvm = _llvm()
        machine = llvm.Target.from_default_triple().create_target_machine()
        self._engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)
        for _, code in codes.values():
            self._engine.add_object_file(llvm.ObjectFileRef.from_data(code))
        self._engine.finalize_object()
        self._functions = {name: self._function(name, symbol) for name, (symbol, _) in codes.items()}

    def __call__(self, name: str, *arguments: Argument) -> int:
        """Run a kernel on C-contiguous arrays of exactly its types, and whole numbers."""
        result, error = ctypes.c_int64(), ctypes.c_void_p()
        values = [value if isinstance(value, int) else value.ctypes.data for value in arguments]
        status = self._functions[name](ctypes.addressof(result), ctypes.addressof(error), *values)
        assert status == 0, f"{name} gave status {status}"
        return result.value

    def _function(self, name: str, symbol: str) -> Callable[..., int]:
        # numba's own calling convention: result and error first, the status is returned.
        kinds = [ctypes.c_int64 if kind == "n" else ctypes.c_void_p for kind in source.KERNELS[name][1]]
        kind = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p, *kinds)
        function: Callable[..., int] = kind(self._engine.get_function_address(symbol))
        return function


def file_name() -> str:
    """Name of the file for this code, these versions and this processor.

    Raises:
        UnusableError: numba or llvmlite is missing or broken, or the machine is of an unknown kind.
    """
    if sys.byteorder != "little" or ctypes.sizeof(ctypes.c_void_p) != 8:
        raise UnusableError("compiled kernels are for 64-bit little-endian machines")
    if not _is_installed("numba"):
        raise UnusableError("numba is not installed; pip install numba")
    try:
        llvm = _llvm()
        parts = [version("numba"), version("llvmlite"), llvm.get_default_triple(), llvm.get_host_cpu_name()]
        parts.append(llvm.get_host_cpu_features().flatten())
        parts += [file.read_text(encoding="utf-8") for file in (*source.SOURCES, _COMPILER)]
    except Exception as error:  # a broken installation fails in any way
        raise UnusableError(f"llvmlite does not work: {error}") from error
    return f"kernels-{hashlib.sha256(chr(0).join(parts).encode()).hexdigest()[:20]}.bin"


def read(path: Path) -> Kernels:
    """Load a file.

    Raises:
        FileNotFoundError: There is no such file.
        UnusableError: It is damaged or made for something else, others may have written it, or it cannot be loaded.
    """
    content = read_checked(path)
    header, _, rest = content.partition(b"\n")
    try:
        name, entries = json.loads(header)
        if name != path.name:
            raise UnusableError(f"{path} was made as {name}, for another machine or version")
        codes = {}
        for kernel, symbol, size in entries:
            codes[kernel], rest = (symbol, rest[:size]), rest[size:]
        return Kernels(codes)
    except UnusableError:
        raise
    except Exception as error:  # foreign code: whatever it raises, the plain path goes on
        raise UnusableError(f"{path} cannot be loaded: {error}") from error


def write(codes: dict[str, tuple[str, bytes]], name: str, places: Sequence[Path]) -> Path:
    """Write a file into the first folder that takes it; see `write_checked`."""
    header = json.dumps([name, [(kernel, symbol, len(code)) for kernel, (symbol, code) in codes.items()]])
    return write_checked(header.encode() + b"\n" + b"".join(code for _, code in codes.values()), name, places)


def _is_installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):  # imports are blocked
        return False


def _llvm() -> Any:
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    return llvm
