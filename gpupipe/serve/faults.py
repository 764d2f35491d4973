"""Why a request was not answered: a status, a stable code, and where the fault is."""

from __future__ import annotations

from typing import Any

import orjson


class Refused(Exception):  # noqa: N818 - an answer, not a failure
    """A request that is refused, with what the client is told.

    Parameters
    ----------
    status : the HTTP status.
    code : a stable word for programs, such as ``wrong_type``.
    message : what was expected and what was found.
    hint : what to do about it.
    row, column : where the fault is, rows from 0.
    headers : more response headers.
    close : end the connection after the answer (the rest of the request is not read).
    """

    def __init__(
        self, status: int, code: str, message: str, *, hint: str | None = None,
        row: int | None = None, column: str | None = None,
        headers: tuple[tuple[bytes, bytes], ...] = (), close: bool = False,
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.hint = status, code, message, hint
        self.row, self.column, self.headers, self.close = row, column, headers, close

    def to_json(self, request_id: str) -> dict[str, Any]:
        return {
            "error": {"code": self.code, "message": self.message, "hint": self.hint,
                      "row": self.row, "column": self.column},
            "request_id": request_id,
        }

    def body(self, request_id: str) -> bytes:
        return orjson.dumps(self.to_json(request_id))


CODES: dict[int, tuple[str, ...]] = {
    400: ("bad_request",),
    401: ("unauthorized",),
    403: ("forbidden",),
    404: ("not_found",),
    405: ("method_not_allowed",),
    406: ("not_acceptable",),
    408: ("timeout",),
    413: ("body_too_large",),
    415: ("unsupported_media_type",),
    422: ("invalid_json", "invalid_arrow", "invalid_request", "missing_column", "wrong_type",
          "not_finite", "out_of_range", "too_many_rows", "unit", "unscorable"),
    500: ("internal",),
    503: ("queue_full", "too_many_bytes", "not_ready"),
}
"""The codes of errors by HTTP status."""


def misfit(code: str, message: str, row: int | None = None, column: str | None = None,
           hint: str | None = None) -> Refused:
    """A 422: the body was read and does not fit the model."""
    return Refused(422, code, message, row=row, column=column, hint=hint)


def too_many_rows(rows: int, most: int) -> Refused:
    """The refusal of a request with more rows than it may have."""
    return misfit("too_many_rows", f"{rows:,} rows, and a request may have {most:,}",
                  hint="send fewer rows a request, or score a file by `gpupipe predict`")


def busy(code: str, message: str) -> Refused:
    """A 503 that says when to come back."""
    return Refused(503, code, message, headers=((b"retry-after", b"1"),))
