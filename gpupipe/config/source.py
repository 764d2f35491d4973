"""A pipeline file's text as plain data, and where in the file each piece of it stands.

YAML is read with PyYAML's parser but resolved here, by the rules of YAML 1.2 and stricter:

- only `true` and `false` are booleans; `yes`, `no`, `on`, `off` are text as written;
- dates, times and numbers with leading zeros (`007`) are text as written;
- the same key twice in a mapping is refused, and so are aliases and tags.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from yaml.composer import Composer
from yaml.parser import Parser
from yaml.reader import Reader, ReaderError
from yaml.resolver import BaseResolver
from yaml.scanner import Scanner

from gpupipe.errors import ConfigError

KeyPath = tuple[str | int, ...]
Span = tuple[int, int, int]
"""Line and column, from 0, and the length of what to underline."""

MAX_BYTES = 1 << 20
MAX_DEPTH = 50
EXAMPLE = 'two lines are enough: "data: {source: table.csv, target: outcome}"'


@dataclass(frozen=True)
class Origin:
    """Where a configuration came from: a file with the spans of its keys, or Python.

    ``base`` is the folder that relative paths start from.
    """

    base: Path
    file: str | None = field(default=None, compare=False)
    lines: tuple[str, ...] = field(default=(), compare=False)
    keys: Mapping[KeyPath, Span] = field(default_factory=dict, compare=False)
    values: Mapping[KeyPath, Span] = field(default_factory=dict, compare=False)

    def fault(
        self, path: KeyPath, message: str, hint: str | None = None, *, key: bool = False
    ) -> ConfigError:
        """The error for what stands at ``path`` (its key where ``key``, else its value)."""
        if self.file is None:
            return ConfigError(message, hint=hint, where=dotted(path) or None)
        for end in range(len(path), -1, -1):  # the nearest thing that the file does spell
            here = path[:end]
            exact = end == len(path) and not key
            span = self.values.get(here) if exact else self.keys.get(here, self.values.get(here))
            if span:
                return self._at(span, message, hint)
        return ConfigError(message, hint=hint, where=self.file)

    def _at(self, span: Span, message: str, hint: str | None) -> ConfigError:
        line, column, length = span
        where = f"{self.file}:{line + 1}:{column + 1}"
        if line >= len(self.lines):
            return ConfigError(message, hint=hint, where=where)
        text, margin = self.lines[line], len(str(line + 1))
        # A tab is one column in the mark, so show it as one blank.
        shown, caret = text.replace("\t", " "), " " * column + "^" * max(1, length)
        excerpt = f"{line + 1} | {shown[:160]}"
        if column < 160:
            excerpt += f"\n{' ' * margin} | {caret[:160]}"
        return ConfigError(message, hint=hint, where=where, excerpt=excerpt)


def dotted(path: KeyPath) -> str:
    """``("features", 0, "impute")`` as ``features[0].impute``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def read(path: Path) -> tuple[dict[str, Any], Origin]:
    """The mapping in a YAML file. Raises ConfigError, located, for anything else."""
    name = str(path)
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise ConfigError(
            "there is no such pipeline file", where=name,
            hint="`gpupipe init DATA --target COLUMN` writes one",
        ) from None
    except IsADirectoryError:
        raise ConfigError("this is a folder; name the pipeline file in it", where=name) from None
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror or error}", where=name) from None
    if len(raw) > MAX_BYTES:
        raise ConfigError("a pipeline file of more than 1 MiB is refused", where=name)
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        column = error.start - (raw.rfind(b"\n", 0, error.start) + 1) + 1
        raise ConfigError(
            f"expected UTF-8 text, found the byte 0x{raw[error.start]:02x}",
            where=f"{name}:{line}:{column}", hint="save the file as UTF-8",
        ) from None
    return parse(text, name, path.resolve().parent)


def parse(text: str, name: str, base: Path) -> tuple[dict[str, Any], Origin]:
    """The mapping in YAML ``text``; ``name`` is what errors call the file."""
    keys: dict[KeyPath, Span] = {}
    values: dict[KeyPath, Span] = {}
    origin = Origin(base, name, tuple(re.split(r"\r\n|\r|\n", text)), keys, values)
    try:
        node = _Loader(text).get_single_node()
    except yaml.MarkedYAMLError as error:
        mark: Any = error.problem_mark or error.context_mark
        message, hint = _explain(error)
        span = (mark.line, mark.column, 1) if mark else (0, 0, 1)
        raise origin._at(span, message, hint) from None
    except ReaderError as error:
        line = text.count("\n", 0, error.position)
        column = error.position - (text.rfind("\n", 0, error.position) + 1)
        code: Any = error.character
        message = f"the character U+{code:04X} may not stand in YAML"
        raise origin._at((line, column, 1), message, "delete it") from None
    if node is None:
        raise ConfigError("the pipeline file is empty", where=name, hint=EXAMPLE)
    if not isinstance(node, yaml.MappingNode):
        raise origin._at(
            _span(node), f"expected keys such as `data:`, found {_kind(node)}", EXAMPLE
        )
    return _build(node, (), origin, keys, values), origin


def plain(value: Any, path: KeyPath, origin: Origin) -> Any:
    """Python data as YAML would give it: tuples as lists, paths as text, NumPy scalars plain."""
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise origin.fault(path, f"expected text for a key, found {key!r}")
        return {key: plain(item, (*path, key), origin) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        items = sorted(value, key=str) if isinstance(value, (set, frozenset)) else value
        return [plain(item, (*path, i), origin) for i, item in enumerate(items)]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if type(value).__module__ == "numpy" and getattr(value, "ndim", None) == 0:
        return value.item()
    return value


class _Loader(Reader, Scanner, Parser, Composer, BaseResolver):
    """PyYAML's parser without its resolver or constructor: nodes with marks, nothing built."""

    def __init__(self, text: str) -> None:
        Reader.__init__(self, text)
        Scanner.__init__(self)
        Parser.__init__(self)
        Composer.__init__(self)
        BaseResolver.__init__(self)
        self.depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent):
            raise _refused("alias", event.start_mark)
        if self.depth > MAX_DEPTH:
            raise _refused("depth", event.start_mark)
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


def _refused(problem: str, mark: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=mark)


_EXPLAINED = (
    (r"^alias", "`*` begins an alias, and pipeline files have none",
     'a glob that begins with * needs quotes: "*_id"'),
    (r"^depth", f"nested more than {MAX_DEPTH} deep", None),
    (r"found character '\\t'", "a tab; YAML is indented with spaces",
     "replace the tab with spaces"),
    (r"found character .* that cannot start", "a value may not begin with this character",
     "put the value in quotes"),
    (r"mapping values are not allowed", "a `:` where no key can stand",
     "check the indentation, or put a text that holds `: ` in quotes"),
    (r"expected a comment or a line break|indentation indicator",
     "`>` or `|` begins a block of text", 'a value that begins with it needs quotes: ">50K"'),
    (r"but found another document", "a second YAML document (after `---`)",
     "one pipeline, one file"),
    (r"found unexpected end of stream", "a quote that is never closed", "close the quote"),
    (r"could not find expected ':'", "expected `key: value`, and there is no `:`",
     "write a blank after the colon"),
    (r"expected <block end>", "the indentation does not match the lines above",
     "keys of one section begin in the same column"),
    (r"expected ',' or '[\]}]'", "a bracket that is never closed, or a comma is missing", None),
)


def _explain(error: yaml.MarkedYAMLError) -> tuple[str, str | None]:
    problem = error.problem or "not YAML"
    for pattern, message, hint in _EXPLAINED:
        if re.search(pattern, problem):
            return message, hint
    return f"not YAML: {problem}", None


def _span(node: yaml.Node) -> Span:
    start, end = node.start_mark, node.end_mark
    one_line = end.line == start.line
    return start.line, start.column, end.column - start.column if one_line else 1


def _kind(node: yaml.Node) -> str:
    if isinstance(node, yaml.SequenceNode):
        return "a list"
    if isinstance(node, yaml.MappingNode):
        return "a mapping"
    return f"the text {node.value[:40]!r}"


def _build(
    node: yaml.Node, path: KeyPath, origin: Origin,
    keys: dict[KeyPath, Span], values: dict[KeyPath, Span],
) -> Any:
    values[path] = _span(node)
    if node.tag.rpartition(":")[2] not in ("str", "seq", "map") or "," not in node.tag:
        raise origin._at(_span(node), f"the tag {node.tag!r} is refused", "delete the tag")
    if isinstance(node, yaml.ScalarNode):
        return _scalar(node.value) if node.style is None else node.value
    if isinstance(node, yaml.SequenceNode):
        return [_build(n, (*path, i), origin, keys, values) for i, n in enumerate(node.value)]
    mapping: dict[str, Any] = {}
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise origin._at(_span(key), f"expected text for a key, found {_kind(key)}", None)
        here = (*path, key.value)
        if key.value in mapping:
            first = keys[here][0] + 1
            raise origin._at(
                _span(key), f"the key {key.value!r} is already given on line {first}",
                "keep one of the two",
            )
        keys[here] = _span(key)
        mapping[key.value] = _build(value, here, origin, keys, values)
    return mapping


def _scalar(text: str) -> Any:
    """A plain (unquoted) scalar by the rules above."""
    if text in ("", "~", "null", "Null", "NULL"):
        return None
    if text.lower() in ("true", "false") and text in (
        text.lower(), text.upper(), text.capitalize()
    ):
        return text.lower() == "true"
    if re.fullmatch(r"[-+]?(0|[1-9]\d*)", text) and len(text) < 400:
        return int(text)
    if re.fullmatch(r"[-+]?(0|[1-9]\d*)?(\.\d*)?([eE][-+]?\d+)?", text) and re.search(r"\d", text):
        return float(text)
    if re.fullmatch(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", text):
        return float(text.replace(".", ""))
    return text
