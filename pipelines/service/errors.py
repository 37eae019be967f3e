"""What the service answers when it does not do what it was asked: one shape for every error (RFC 9457)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from retrieval.errors import (
    ConfigError,
    DocumentError,
    IndexMismatchError,
    MissingExtraError,
    ModelError,
    StoreBusyError,
    StoreError,
    StoreFullError,
    StoreInputError,
)

PROBLEM_TYPE = "application/problem+json"
_SHOWN_PROBLEMS = 20


class ServiceError(HTTPException):
    """Ends a request with a status and a sentence; raise it anywhere below the door.

    FastAPI lets an `HTTPException` through where it would make something else of another error.

    Args:
        status: HTTP status, 400 to 599.
        code: Short name of the error for programs.
        detail: One sentence for a person; never text of documents or queries.
        headers: Further headers of the answer, such as ``Retry-After``.
        errors: What is wrong with which field.
    """

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        headers: Mapping[str, str] | None = None,
        errors: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        super().__init__(status, detail, dict(headers or {}))
        self.code = code
        self.errors = tuple(errors)

    def body(self, request_id: str) -> bytes:
        """The answer as JSON.

        Args:
            request_id: Id of the request.
        """
        problem: dict[str, Any] = {
            "type": "about:blank",
            "title": HTTPStatus(self.status_code).phrase,
            "status": self.status_code,
            "code": self.code,
            "detail": self.detail,
            "request_id": request_id,
        }
        if self.errors:
            problem["errors"] = [dict(entry) for entry in self.errors]
        # OpenAI's clients show their users this and nothing else.
        problem["error"] = {"message": self._sentence(), "type": self.code, "param": None, "code": self.code}
        return json.dumps(problem, ensure_ascii=True, allow_nan=False).encode()

    def _sentence(self) -> str:
        """The detail, with what is wrong with the fields."""
        wrong = (f"{'.'.join(map(str, entry['loc']))}: {entry['message']}" for entry in self.errors)
        return "; ".join((self.detail, *wrong))


def saturated(code: str, detail: str, retry_after: float) -> ServiceError:
    """429 with the seconds after which there may be room again."""
    return ServiceError(429, code, detail, headers={"Retry-After": str(max(1, round(retry_after + 0.499)))})


def unavailable(code: str, detail: str, retry_after: float = 1.0) -> ServiceError:
    """503 with the seconds after which it may work again."""
    return ServiceError(503, code, detail, headers={"Retry-After": str(max(1, round(retry_after + 0.499)))})


def service_error(error: Exception) -> ServiceError | None:
    """What an error means to a client; ``None`` for one that nobody foresaw."""
    if isinstance(error, ServiceError):
        return error
    if isinstance(error, RequestValidationError):
        return _invalid(error)
    if isinstance(error, HTTPException):
        return _of_framework(error)
    for kind, status, code, detail in _OF_LIBRARY:
        if isinstance(error, kind):
            headers = {"Retry-After": "5"} if status == 503 else None
            return ServiceError(status, code, detail or str(error), headers=headers)
    return None


_OF_LIBRARY: tuple[tuple[type[Exception], int, str, str | None], ...] = (
    (StoreInputError, 422, "unusable_input", None),
    (StoreFullError, 507, "disk_full", "too little disk is left to write safely; free some and try again"),
    (IndexMismatchError, 409, "index_mismatch", None),
    (StoreBusyError, 503, "index_busy", None),
    (StoreError, 503, "store_failed", "the vector store failed or cannot be reached; the log says why"),
    (MissingExtraError, 501, "missing_package", None),
    (ModelError, 503, "model_failed", None),
    (ConfigError, 422, "unusable_input", None),
    (DocumentError, 422, "unusable_input", None),
)
"""Kind of error, status, code, and what to say, ``None`` for its own message; the first that fits."""


def _invalid(error: RequestValidationError) -> ServiceError:
    """What is wrong with which field, without the value that was sent."""
    problems = error.errors()
    if problems and problems[0]["type"] == "json_invalid":
        return ServiceError(400, "malformed_json", f"the body is not JSON: {problems[0]['ctx']['error']}")
    shown = [
        {"loc": _place(entry["loc"]), "message": entry["msg"].removeprefix("Value error, ")}
        for entry in problems[:_SHOWN_PROBLEMS]
    ]
    return ServiceError(422, "invalid_request", "the request is not as the API describes it", errors=shown)


def _place(location: Sequence[int | str]) -> list[int | str]:
    # The tag of a union, "@one", is no part of the request.
    return [part if isinstance(part, int) else part[:100] for part in location if not str(part).startswith("@")]


def _of_framework(error: HTTPException) -> ServiceError:
    status = HTTPStatus(error.status_code)
    code = status.phrase.lower().replace(" ", "_").replace("-", "_")
    details = {404: "there is no such path", 405: "this path does not know the method"}
    return ServiceError(status, code, details.get(status, status.description), headers=error.headers)
