"""The prompt: history, editing, completion; what is pasted runs nothing by itself."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.keys import Keys

from pipelines.terminal.history import prepared
from pipelines.terminal.session import COMMANDS, SearchSession
from pipelines.terminal.settings import CHOICES, DEFAULT, SETTINGS

PROMPT = "search> "


class CommandCompleter(Completer):
    """Completes commands, names of settings, and values where there are few."""

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        """What may stand at the cursor."""
        text = document.text_before_cursor
        if not text.startswith(":"):
            return
        words = text.split(" ")
        if len(words) == 1:
            choices: Iterable[str] = COMMANDS
        elif words[0] == ":set" and len(words) == 2:
            choices = SETTINGS
        elif words[0] == ":set" and len(words) == 3:
            choices = (*CHOICES.get(words[1], ()), DEFAULT)
        else:
            return
        for choice in choices:
            if choice.startswith(words[-1]):
                yield Completion(choice, start_position=-len(words[-1]))


class _Remembered(FileHistory):
    """What begins with a blank is not remembered, as in a shell."""

    def store_string(self, string: str) -> None:
        if not string.startswith(" "):
            super().store_string(string)


def run_prompt(session: SearchSession, history: Path) -> None:
    """Ask for lines and handle them until the end.

    Ctrl-C clears the line or stops a running search, Ctrl-D on an empty line leaves.

    Args:
        session: Handles the lines.
        history: File with earlier lines; where it cannot be written, they are forgotten at the end.
    """
    remembered: History = _Remembered(str(history)) if prepared(history) else InMemoryHistory()
    prompt: PromptSession[str] = PromptSession(
        PROMPT,
        history=remembered,
        completer=CommandCompleter(),
        complete_while_typing=False,
        key_bindings=_paste_as_one_line(),
    )
    while True:
        try:
            line = prompt.prompt()
        except KeyboardInterrupt:
            continue
        except EOFError:
            return
        if not session.handle(line):
            return


def _paste_as_one_line() -> KeyBindings:
    bindings = KeyBindings()

    @bindings.add(Keys.BracketedPaste)
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text(" ".join(event.data.split()))

    return bindings
