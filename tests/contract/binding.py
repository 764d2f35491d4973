"""Whether a use of a library is one that the library has: its name, its arguments, its device.

Where there is a signature, the call is bound to it. Compiled functions have none; theirs is the
first line of their documentation, which Cython and CuPy's ufuncs write from the code itself, or
the list of parameters in it.
"""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from typing import Any

from contract.record import Use

TO_HOST = {
    "cupy": {"asnumpy", "array_repr", "array_str", "array2string", "save", "savez", "savetxt",
             "load", "loadtxt", "genfromtxt", "fromfile", "vectorize", "apply_along_axis"},
    "cupy.ndarray": {"tolist", "tobytes", "tofile", "dump", "dumps", "item", "__array__"},
    "cudf": {"from_pandas"},
    "cudf.DataFrame": {"to_pandas", "to_numpy", "iterrows", "itertuples", "apply", "applymap",
                       "map", "values_host", "__array__"},
    "cudf.Series": {"to_pandas", "to_numpy", "to_arrow", "to_list", "tolist", "apply", "map",
                    "values_host", "__array__", "__iter__"},
}
"""What takes data to the host, or Python to every value. `cudf.Index.to_arrow` is of the few
distinct values, and `cupy.ndarray.get` is the one copy that says that it is one."""


def problem(use: Use) -> str | None:
    """What is wrong with a use; None where nothing is."""
    if use.name in TO_HOST.get(use.owner, ()):
        return f"{use}: goes to the host"
    try:
        owner = _found(use.owner)
    except (ImportError, AttributeError) as error:
        return f"{use}: {error}"
    if use.name == "__init__":
        return None if use.positional is None else _bound(use, owner)
    try:
        thing = inspect.getattr_static(owner, use.name) if isinstance(owner, type) else getattr(
            owner, use.name)
    except AttributeError:
        if use.positional is None and _learned(owner, use.name):
            return None
        return f"{use}: {use.owner} has no such name"
    if use.positional is None:
        return None
    called = getattr(owner, use.name)
    if not callable(called):
        return f"{use}: is no function"
    method = isinstance(owner, type) and not isinstance(thing, staticmethod | classmethod)
    return _bound(use, called, 1 if method else 0)


def _found(name: str) -> Any:
    """The module or class of that full name."""
    module, _, rest = name.partition(".")
    found = importlib.import_module(module)
    while rest:
        part, _, rest = rest.partition(".")
        module = f"{module}.{part}"
        if not hasattr(found, part):
            importlib.import_module(module)
        found = getattr(found, part)
    return found


def _learned(owner: Any, name: str) -> bool:
    """Whether an estimator documents an attribute that it has once it is fitted."""
    _, _, section = (owner.__doc__ or "").partition("Attributes\n")
    return name.endswith("_") and re.search(rf"^ *{name} ?:", section, re.MULTILINE) is not None


def _bound(use: Use, called: Any, itself: int = 0) -> str | None:
    """Bind the arguments to what is called; ``itself`` is 1 for a method of a class."""
    if use.name.startswith("__") and use.name != "__init__":
        return None  # an operator: Python itself sees to its arguments
    try:
        signature = inspect.signature(called)
    except (ValueError, TypeError):
        text = documented(called)
        if text is None:
            return f"{use}: has no signature, and none is documented"
        signature, itself = text, 0
    try:
        bound = signature.bind(*[None] * (use.positional or 0), *[None] * itself,
                               **dict.fromkeys(use.keywords))
    except TypeError as error:
        return f"{use}: {error}; it is {signature}"
    return _passed_on(use, called, signature, bound)


HANDED_ON = {
    "xgboost.collective.CommunicatorContext": "init",
    "xgboost.config.config_context": "config_context",
}
"""What takes its keywords from a list in a docstring: that of this function of its module."""


def _passed_on(
    use: Use, called: Any, signature: inspect.Signature, bound: inspect.BoundArguments
) -> str | None:
    """What a class takes as ``**kwargs`` has to be a parameter of a class that it is made of."""
    rest = next((n for n, p in signature.parameters.items() if p.kind is p.VAR_KEYWORD), None)
    extra = set(bound.arguments.get(rest, ())) if rest else set()
    if isinstance(called, type):
        for base in called.__mro__[1:-1]:
            extra -= set(inspect.signature(base.__init__).parameters)
    module = getattr(called, "__module__", "")
    documented_in = HANDED_ON.get(f"{module}.{getattr(called, '__qualname__', '')}")
    if documented_in:
        known = inspect.getdoc(getattr(sys.modules[module], documented_in)) or ""
        extra -= {name for name in extra if re.search(rf"\b{name}\s*[:=]", known)}
    return f"{use}: nothing takes {', '.join(sorted(extra))}" if extra else None


def documented(called: Any) -> inspect.Signature | None:
    """The signature in the first line of a docstring, without ``self``; None without one."""
    first = (getattr(called, "__doc__", None) or "").strip().partition("\n")[0].replace("\\", "")
    match = re.search(r"\((.*)\)", first.partition("->")[0])
    if match is None:
        return _listed(getattr(called, "__doc__", None) or "")
    parameters, kind = [], inspect.Parameter.POSITIONAL_OR_KEYWORD
    for piece in re.sub(r"[\[\]]", "", _flat(match[1])).split(","):
        name, _, default = piece.strip().partition("=")
        if name in ("", "/", "self"):
            continue
        if name == "*":
            kind = inspect.Parameter.KEYWORD_ONLY
            continue
        own = inspect.Parameter.VAR_POSITIONAL if name.startswith("*") else kind
        if name.startswith("*"):
            kind = inspect.Parameter.KEYWORD_ONLY
        optional = bool(default) or "[" in piece
        parameters.append(inspect.Parameter(
            name.split()[-1].lstrip("*"), own,
            default=None if optional and own is not inspect.Parameter.VAR_POSITIONAL
            else inspect.Parameter.empty))
    return inspect.Signature(parameters)


def _listed(text: str) -> inspect.Signature | None:
    """The signature that the section "Parameters" of a docstring lists; None without one."""
    _, found, section = text.partition("Parameters\n")
    lines = re.findall(r"^ *(\w+) ?: (.*)$", section, re.MULTILINE)
    if not found or not lines:
        return None
    return inspect.Signature([
        inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD,
                          default=None if "optional" in kind else inspect.Parameter.empty)
        for name, kind in lines
    ])


def _flat(text: str) -> str:
    """The text without what stands in inner brackets: the defaults that are tuples."""
    return re.sub(r"=\([^)]*\)", "=None", text)
