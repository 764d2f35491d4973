"""How a call of the command line ends: an answer or an error, as text or as one JSON object.

Exit codes: 0 done, 1 an internal error, 2 usage or configuration, 3 data, 4 a gate did not
pass, 5 the environment lacks something, 130 interrupted. A reader that closes the pipe early
(``gpupipe show | head``) is no error.
"""

from __future__ import annotations

import json
import math
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import PurePath
from typing import Any

import typer

from gpupipe.errors import ConfigError, GpupipeError

INTERRUPTED = 130
# Typer's own click: its base of all usage errors has no public name.
UsageError: type[Exception] = typer.BadParameter.__bases__[0]


@dataclass(frozen=True)
class Answer:
    """What a verb returns: the JSON object, how to show it in a terminal, the exit code."""

    data: Mapping[str, Any]
    show: Callable[[], None]
    code: int = 0


def call(arguments: list[str]) -> int:
    """Run one command line; print its answer or its error; return the exit code."""
    from gpupipe.cli.verbs import app

    options = arguments[: arguments.index("--")] if "--" in arguments else arguments
    as_json, debug = "--json" in options, "--debug" in options
    if not debug:
        warnings.showwarning = _warn
    try:
        with _stdout_for_json(as_json) as emit:
            try:
                answer = app(arguments or ["--help"], standalone_mode=False)
                if answer == INTERRUPTED:  # Typer turns an interrupt into this code
                    raise KeyboardInterrupt
            except BrokenPipeError:
                raise
            except BaseException as error:
                if debug and not isinstance(error, (SystemExit, UsageError)):
                    import traceback

                    traceback.print_exc()
                return _fail(error, emit if as_json else None)
            if not isinstance(answer, Answer):  # --help and --version print for themselves
                return int(answer or 0)
            if as_json:
                emit(answer.data)
            else:
                answer.show()
            return answer.code
    except BrokenPipeError:
        # Python flushes stdout once more as it leaves: give that flush somewhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0


@contextmanager
def _stdout_for_json(as_json: bool) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Yield what writes the one JSON object; all else that writes to stdout goes to stderr.

    Libraries in C print too, so it is the file descriptor that is turned, not `sys.stdout`.
    """
    if not as_json:
        yield lambda data: None
        sys.stdout.flush()
        return
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)

    def emit(data: Mapping[str, Any]) -> None:
        text = json.dumps(plain(data), ensure_ascii=False, allow_nan=False) + "\n"
        with open(os.dup(kept), "w", encoding="utf-8") as out:  # noqa: PTH123 - a descriptor
            out.write(text)

    try:
        yield emit
    finally:
        with suppress(BrokenPipeError):
            sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)


def _fail(error: BaseException, emit: Callable[[Mapping[str, Any]], None] | None) -> int:
    """Print an error; return its exit code."""
    if isinstance(error, SystemExit):
        if isinstance(error.__context__, BrokenPipeError):
            raise error.__context__
        return error.code if isinstance(error.code, int) else 1
    if isinstance(error, (KeyboardInterrupt, typer.Abort)):
        fault, code, kind = GpupipeError("interrupted"), INTERRUPTED, "Interrupted"
    elif isinstance(error, GpupipeError):
        fault, code, kind = error, error.exit_code, type(error).__name__
    elif isinstance(error, UsageError):
        fault, code, kind = _usage(error), ConfigError.exit_code, "UsageError"
    elif isinstance(error, MemoryError):
        fault, code, kind = GpupipeError(
            "this machine ran out of memory", hint="set engine.memory or engine.batch_rows lower"
        ), 5, "MemoryError"
    elif isinstance(error, OSError) and error.filename is not None:
        fault, code, kind = GpupipeError(
            f"{error.strerror or error}", where=str(error.filename)
        ), 5, type(error).__name__
    else:
        fault, code, kind = GpupipeError(
            f"internal error: {type(error).__name__}: {error}",
            hint="this is a fault in gpupipe; --debug shows where",
        ), 1, type(error).__name__
    if emit:
        emit({"error": {
            "kind": kind, "exit_code": code, "message": fault.message, "hint": fault.hint,
            "where": fault.where, "excerpt": fault.excerpt,
        }})
    else:
        _print_error(fault)
    return code


def _usage(error: BaseException) -> ConfigError:
    message: str = error.format_message()  # type: ignore[attr-defined]
    context = getattr(error, "ctx", None)
    near = [m for m in ("Did you mean", "(Possible options:") if m in message]
    hint = f"`{context.command_path} --help` shows what there is" if context else None
    if near:
        message, _, rest = message.partition(near[0])
        hint = (near[0] + rest).replace("(Possible options:", "did you mean")
        hint = hint[0].lower() + hint[1:].rstrip(")?") + "?"
    inside = _inside(context, message) if context else None
    if inside:
        hint = f"did you mean {inside!r}?"
    return ConfigError(message.strip().rstrip("."), hint=hint)


def _inside(context: Any, message: str) -> str | None:
    """The command of that very name in a group, where one was asked for outside."""
    name = re.search(r"No such command '([^']+)'", message)
    if name is None:
        return None
    groups: Mapping[str, Any] = getattr(context.command, "commands", {})
    return next((f"{group} {name[1]}" for group, command in groups.items()
                 if name[1] in getattr(command, "commands", {})), None)


def _print_error(fault: GpupipeError) -> None:
    from rich.text import Text

    from gpupipe.console import stderr

    where = f"{fault.where}: " if fault.where else ""
    text = Text.assemble(("error: ", "bold red"), where, fault.message)
    if fault.excerpt:
        text.append("\n" + fault.excerpt, "cyan")
    if fault.hint:
        text.append("\nhint: ", "bold green").append(fault.hint)
    stderr().print(text, soft_wrap=True)


def _warn(
    message: Warning | str, category: type[Warning], filename: str, lineno: int,
    file: Any = None, line: str | None = None,
) -> None:
    print(f"warning: {message}", file=sys.stderr)


def plain(value: Any) -> Any:
    """Any answer as JSON data: no NaN or infinity (null), no paths, no NumPy."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    if isinstance(value, PurePath):
        return str(value)
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if type(value).__module__ == "numpy":
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, (str, int, float)):
        return value
    return str(value)
