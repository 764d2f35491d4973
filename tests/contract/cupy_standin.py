"""A stand-in for CuPy on NumPy: it computes, records what is used, and refuses what CuPy refuses.

An array here is no NumPy array, and NumPy cannot take one for its own: what would go to the
host and back in silence is an error. Arithmetic with Python's numbers has CuPy's rules.
"""

from __future__ import annotations

import sys
import types
from typing import Any

import numpy as np
from contract.record import HostCopy, Record

BINARY = ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "and", "or", "xor", "lshift",
          "rshift", "matmul")
COMPARISONS = ("lt", "le", "eq", "ne", "gt", "ge")
UNARY = ("neg", "pos", "abs", "invert")
TO_HOST = {"tolist", "tobytes", "item", "tofile", "dump", "dumps", "data"}
"""What takes an array to the host, though it does not look like it."""
FROM_HOST = {"asarray", "array"}
"""The only functions that may be given a NumPy array."""
HOST_READERS = ("gpupipe.engine.arrays",)
"""The modules that may ask for a copy on the host."""


def make(record: Record) -> types.ModuleType:
    """A new module ``cupy``, whose uses go to ``record``."""
    module = _Module("cupy")
    module._record = record
    module.ndarray = _array_class(record, module)
    module.cuda = types.SimpleNamespace(
        memory=types.SimpleNamespace(OutOfMemoryError=_OutOfMemoryError),
        set_allocator=_recorded(record, "cupy.cuda", "set_allocator", lambda allocator: None),
    )
    return module


class _OutOfMemoryError(MemoryError):
    """CuPy's own."""


def _recorded(record: Record, owner: str, name: str, function: Any) -> Any:
    def call(*args: Any, **kwargs: Any) -> Any:
        record.call(owner, name, len(args), kwargs)
        return function(*args, **kwargs)

    return call


class _Module(types.ModuleType):
    """NumPy's functions, for arrays on the device alone."""

    _record: Record
    ndarray: type
    cuda: Any

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        thing = getattr(np, name)
        if isinstance(thing, type) or not callable(thing):
            self._record.get("cupy", name)
            return thing

        def function(*args: Any, **kwargs: Any) -> Any:
            self._record.call("cupy", name, len(args), kwargs)
            return self.wrapped(self.called(name, thing, args, kwargs))

        return function

    def called(self, name: str, thing: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if name in FROM_HOST and isinstance(args[0], np.ndarray):
            return self.ndarray(np.array(args[0], *args[1:], **kwargs))  # a copy: other memory
        if name == "searchsorted":
            for array in args[:2]:
                if not isinstance(array, self.ndarray | int | float):
                    raise NotImplementedError(f"cupy.searchsorted of a {type(array).__name__}")
        return thing(*(self.host(a, name) for a in args),
                     **{k: self.host(v, name) for k, v in kwargs.items()})

    def host(self, value: Any, where: str) -> Any:
        """What a stand-in array holds; other values as they are, but for arrays of the host."""
        if isinstance(value, self.ndarray):
            return value._host
        if isinstance(value, list | tuple):
            return type(value)(self.host(v, where) for v in value)
        if isinstance(value, np.ndarray):
            raise HostCopy(f"cupy's {where} was given a NumPy array of shape {value.shape}")
        return value

    def wrapped(self, value: Any) -> Any:
        """Arrays as arrays on the device, and so every scalar that NumPy makes of them."""
        if isinstance(value, np.ndarray | np.generic):
            return self.ndarray(np.asarray(value))
        if isinstance(value, tuple) and any(isinstance(v, np.ndarray) for v in value):
            return tuple(self.wrapped(v) for v in value)
        return value


def _array_class(record: Record, module: _Module) -> type:
    """The class of arrays of a module; one of its own, for it records to one record."""

    class ndarray:  # noqa: N801 - CuPy's name
        __array_priority__ = 100
        __hash__ = None  # type: ignore[assignment]

        def __init__(self, host: np.ndarray) -> None:
            if host.dtype.kind not in "biufc":
                raise TypeError(f"CuPy has no arrays of {host.dtype}")
            self._host = host

        def __getattr__(self, name: str) -> Any:
            if name in TO_HOST:
                raise HostCopy(f"ndarray.{name} takes an array to the host")
            if name.startswith("__"):
                raise AttributeError(name)
            thing = getattr(self._host, name)
            if not callable(thing):
                record.get("cupy.ndarray", name)
                return module.wrapped(thing) if isinstance(thing, np.ndarray) else thing

            def method(*args: Any, **kwargs: Any) -> Any:
                record.call("cupy.ndarray", name, len(args), kwargs)
                args = tuple(module.host(a, name) for a in args)
                kwargs = {k: module.host(v, name) for k, v in kwargs.items()}
                return module.wrapped(thing(*args, **kwargs))

            return method

        def get(self) -> np.ndarray:
            """A copy on the host, for those who may ask for one."""
            asker = sys._getframe(1).f_globals["__name__"]
            if asker not in HOST_READERS and not asker.startswith("contract."):
                raise HostCopy(f"{asker} copies an array to the host by itself")
            record.call("cupy.ndarray", "get", 0)
            return self._host.copy()

        def __array__(self, *args: Any, **kwargs: Any) -> np.ndarray:
            raise TypeError("Implicit conversion to a NumPy array is not allowed.")

        def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
            if method != "__call__":
                raise TypeError(f"CuPy has no {ufunc.__name__}.{method}")
            return getattr(module, ufunc.__name__)(*inputs, **kwargs)

        def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
            return getattr(module, func.__name__)(*args, **kwargs)

        def __len__(self) -> int:
            return len(self._host)

        def __iter__(self) -> Any:
            if self._host.ndim < 2:
                raise HostCopy("iterating over an array copies it value by value")
            record.call("cupy.ndarray", "__iter__", 0)
            return iter([ndarray(row) for row in self._host])

        def __getitem__(self, key: Any) -> Any:
            record.call("cupy.ndarray", "__getitem__", 1)
            return ndarray(np.asarray(self._host[_key(key)]))

        def __setitem__(self, key: Any, value: Any) -> None:
            record.call("cupy.ndarray", "__setitem__", 2)
            self._host[_key(key)] = module.host(value, "assignment")

    def _key(key: Any) -> Any:
        if isinstance(key, tuple):
            return tuple(_key(k) for k in key)
        if isinstance(key, list):
            raise HostCopy("an index that is a list is copied to the device every time")
        return module.host(key, "index")

    for name in ("bool", "int", "float", "index"):
        setattr(ndarray, f"__{name}__", _scalar(record, f"__{name}__"))
    for name in UNARY:
        setattr(ndarray, f"__{name}__", _operator(record, module, f"__{name}__"))
    for name in COMPARISONS:
        setattr(ndarray, f"__{name}__", _operator(record, module, f"__{name}__"))
    for name in BINARY:
        for prefix in ("", "r", "i"):
            dunder = f"__{prefix}{name}__"
            setattr(ndarray, dunder, _operator(record, module, dunder))
    ndarray.__module__, ndarray.__qualname__ = "cupy", "ndarray"
    return ndarray


def _scalar(record: Record, dunder: str) -> Any:
    def convert(self: Any) -> Any:
        record.call("cupy.ndarray", dunder, 0)
        return getattr(self._host, dunder)()

    return convert


def _operator(record: Record, module: _Module, dunder: str) -> Any:
    def operate(self: Any, *others: Any) -> Any:
        record.call("cupy.ndarray", dunder, len(others))
        values = [_operand(self._host, module.host(o, dunder)) for o in others]
        result = getattr(self._host, dunder)(*values)
        if result is NotImplemented:
            return result
        if dunder.startswith("__i") and dunder != "__invert__":
            return self
        return module.wrapped(result)

    return operate


def _operand(array: np.ndarray, value: Any) -> Any:
    """A Python number has to fit the array's type: NumPy alone compares past it."""
    if type(value) is int and array.dtype.kind in "iu":
        limits = np.iinfo(array.dtype)
        if not limits.min <= value <= limits.max:
            raise OverflowError(f"Python integer {value} out of bounds for {array.dtype}")
    return value
