"""How a function becomes a command, and how an error becomes an exit code."""

from __future__ import annotations

import contextlib
import inspect
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any, get_type_hints

import typer

from pipelines.commands.invocation import Invocation

FAILED = 1
BAD_USAGE = 2
INTERRUPTED = 130


def command(
    app: typer.Typer, *, name: str | None = None, interrupted: str = "stopped"
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register a function as a command of ``app``.

    Its first parameter is the `Invocation`; on the command line the options of the invocation follow those of the
    command itself. An error ends the process with one sentence on stderr and an exit code: 1 failed, 2 bad usage,
    130 interrupted. With ``--json`` the same sentence stands in the document on stdout.

    Args:
        app: Where to register.
        name: Name of the command; ``None`` takes that of the function.
        interrupted: What Ctrl-C says.
    """

    def register(function: Callable[..., None]) -> Callable[..., None]:
        own = list(inspect.signature(function, eval_str=True).parameters.values())[1:]
        shared_types = get_type_hints(Invocation, include_extras=True)
        shared = [
            parameter.replace(annotation=shared_types[name], kind=inspect.Parameter.KEYWORD_ONLY)
            for name, parameter in inspect.signature(Invocation).parameters.items()
        ]

        def run(**values: Any) -> None:
            invocation = Invocation(**{parameter.name: values.pop(parameter.name) for parameter in shared})
            try:
                _start_tracing()
                function(invocation, **values)
                sys.stdout.flush()
            except BrokenPipeError:
                # Whoever read the output has seen enough; the interpreter must not complain about it at exit.
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                raise typer.Exit(FAILED) from None
            except KeyboardInterrupt:
                _fail(invocation, interrupted, INTERRUPTED)
            except Exception as error:
                if isinstance(error, typer.Exit | typer.Abort | typer.BadParameter):
                    raise
                _fail(invocation, *_described(error))

        parameters = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own] + shared
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        run.__doc__ = inspect.getdoc(function)
        app.command(name=name or function.__name__.replace("_", "-"))(run)
        return function

    return register


def _start_tracing() -> None:
    from pipelines.tracing import start_tracing  # imports numpy, which `--help` does without

    start_tracing("retrieval")


def _described(error: Exception) -> tuple[str, int]:
    from retrieval.errors import ConfigError, RetrievalError

    if isinstance(error, ConfigError | ValueError):
        return str(error), BAD_USAGE
    if isinstance(error, RetrievalError):
        return str(error), FAILED
    if isinstance(error, OSError):
        place = f"{error.filename}: " if error.filename else ""
        return f"{place}{error.strerror or error}", FAILED
    return f"unexpected {type(error).__name__}: {error}; --debug shows where", FAILED


def _fail(invocation: Invocation, message: str, code: int) -> None:
    from pipelines.render.output import error_console, write_json

    if invocation.debug:
        traceback.print_exc()
    error_console().print(message if code == INTERRUPTED else f"error: {message}", style="red")
    if invocation.json:
        # Where stdout is what failed, nothing more can be written to it.
        with contextlib.suppress(OSError):
            write_json({"error": message, "exit_code": code})
    raise typer.Exit(code)
