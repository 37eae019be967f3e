"""A language model behind any endpoint that speaks OpenAI's chat completions, read as a stream."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import openai


class ChatError(Exception):
    """The model could not be asked, or its answer broke off; the message is for a person."""


class ChatModel:
    """Asks one model.

    Args:
        name: Name of the model, as the endpoint knows it.
        base_url: ``http://localhost:8080/v1``; ``None`` for OpenAI's own.
        api_key: Key; endpoints of one's own often want none, and get the word ``none`` then.
        stream: Ask for server-sent events; ``False`` for an endpoint that has none.
        patience_s: Seconds without a sign of the endpoint after which it counts as gone.
        deadline_s: Seconds for the whole answer.
        attempts: How often a request is sent at most, while the endpoint is busy or fails before it answers.
    """

    def __init__(
        self,
        name: str,
        *,
        base_url: str | None,
        api_key: str | None,
        stream: bool = True,
        patience_s: float = 30.0,
        deadline_s: float = 120.0,
        attempts: int = 3,
    ) -> None:
        self.name = name
        self.end: str | None = None
        self._stream = stream
        self._deadline_s = deadline_s
        self._client = openai.OpenAI(
            base_url=base_url,
            api_key=api_key or "none",
            timeout=openai.Timeout(patience_s, connect=min(10.0, patience_s)),
            max_retries=attempts - 1,
        )
        self.place = str(self._client.base_url)

    def answer(self, messages: list[dict[str, str]]) -> Iterator[str]:
        """The answer, piece by piece; `end` says afterwards why it ended (``stop``, ``length``, …).

        Raises:
            ChatError: As its message says; what came before it stands.
        """
        self.end = None
        begun = False
        try:
            if self._stream:
                for piece in self._pieces(messages):
                    begun = True
                    yield piece
            else:
                reply = self._client.chat.completions.create(**self._request(messages, stream=False))
                self.end = reply.choices[0].finish_reason if reply.choices else None
                yield (reply.choices[0].message.content or "") if reply.choices else ""
        except ChatError:
            raise
        except Exception as error:
            # While a stream is read some versions of the client let the errors of their HTTP library through.
            raise ChatError(self._broken(error) if begun else self._explained(error)) from error

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _pieces(self, messages: list[dict[str, str]]) -> Iterator[str]:
        ends_at = time.monotonic() + self._deadline_s
        with self._client.chat.completions.create(**self._request(messages, stream=True)) as chunks:
            for chunk in chunks:
                if time.monotonic() > ends_at:
                    raise ChatError(
                        f"{self.name} had not ended its answer after {self._deadline_s:g} s; --deadline allows more"
                    )
                for choice in (chunk.choices or ())[:1]:
                    self.end = choice.finish_reason or self.end
                    if choice.delta is not None and choice.delta.content:
                        yield choice.delta.content

    def _request(self, messages: list[dict[str, str]], *, stream: bool) -> dict[str, Any]:
        return {"model": self.name, "messages": messages, "temperature": 0, "stream": stream}

    def _explained(self, error: Exception) -> str:
        if isinstance(error, openai.APITimeoutError):
            return f"{self.place} gave no sign in time; --patience allows more seconds"
        if isinstance(error, openai.AuthenticationError | openai.PermissionDeniedError):
            return f"{self.place} does not accept the key in OPENAI_API_KEY"
        if isinstance(error, openai.NotFoundError):
            return (
                f"{self.place} knows no model {self.name!r}, or no chat completions: see OPENAI_MODEL, OPENAI_BASE_URL"
            )
        if isinstance(error, openai.RateLimitError):
            return f"{self.place} is busy, or a quota is used up; ask again later"
        if isinstance(error, openai.APIStatusError):
            return f"{self.place} answered {error.status_code}: {_short(error)}"
        if isinstance(error, openai.APIConnectionError):
            return f"{self.place} cannot be reached: {_short(error.__cause__ or error)}"
        return f"{self.place} sent something that is no chat completion: {_short(error)}"

    def _broken(self, error: Exception) -> str:
        if "Timeout" in type(error).__name__:
            return f"{self.place} fell silent in the middle of the answer; --patience allows more seconds"
        return f"{self.place} broke off in the middle of the answer: {_short(error.__cause__ or error)}"


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
