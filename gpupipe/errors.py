"""Every error a user can meet, with the exit code the command line gives it.

An error is one clear message: where (file, line, column), what was expected, what was
found, and a `hint` that says what to do. The command line prints it without a traceback.
"""

from __future__ import annotations


class GpupipeError(Exception):
    """Base class. ``exit_code`` is what the ``gpupipe`` command ends with.

    Parameters
    ----------
    message : what was expected and what was found, in one sentence or two.
    hint : what to do about it.
    where : ``file``, ``file:line`` or ``file:line:column``.
    excerpt : source lines to show under the message (a caret line, say).
    """

    exit_code = 1

    def __init__(
        self, message: str, *, hint: str | None = None, where: str | None = None,
        excerpt: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.where = where
        self.excerpt = excerpt

    def __str__(self) -> str:
        text = f"{self.where}: {self.message}" if self.where else self.message
        if self.excerpt:
            text += "\n" + self.excerpt
        if self.hint:
            text += f"\nhint: {self.hint}"
        return text


class ConfigError(GpupipeError):
    """A pipeline file, an option or a parameter that cannot be what the user meant."""

    exit_code = 2


class DataError(GpupipeError):
    """Data that cannot be read, typed or used as the pipeline asks."""

    exit_code = 3


class GateError(GpupipeError):
    """A check that the user asked for did not pass."""

    exit_code = 4


class EnvironmentFault(GpupipeError):  # noqa: N818 - OSError has taken the other name
    """This machine lacks something that the request needs (a GPU, a package)."""

    exit_code = 5


def did_you_mean(name: str, known: list[str] | tuple[str, ...]) -> str | None:
    """The nearest known name, or None where nothing is near."""
    import difflib

    lowered = {k.lower(): k for k in reversed(known)}
    close = difflib.get_close_matches(name.lower(), list(lowered), n=1, cutoff=0.6)
    return lowered[close[0]] if close else None
