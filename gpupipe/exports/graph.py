"""An ONNX graph under construction: operators and constants by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from gpupipe.errors import EnvironmentFault

OPSET, ML_OPSET, IR = 19, 3, 9
ML = "ai.onnx.ml"
INTERNAL = "gpupipe/"
"""What names within the graph begin with, so that no column's is among them."""


def onnx_library() -> Any:
    """The ``onnx`` package. EnvironmentFault where it is absent."""
    try:
        import onnx
        import onnx.helper
        import onnx.numpy_helper
    except ImportError as error:
        raise EnvironmentFault(f"an ONNX model is written by onnx, which cannot be imported here: "
                               f"{error}", hint="pip install 'gpupipe[onnx]'") from None
    return onnx


class Builder:
    """Collects nodes and constants; every method gives the name of a tensor."""

    def __init__(self) -> None:
        self.onnx = onnx_library()
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.inputs: list[Any] = []
        self.outputs: list[Any] = []

    def op(self, kind: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        """An operator with one output."""
        name = f"{INTERNAL}{kind}_{len(self.nodes)}"
        self.nodes.append(self.onnx.helper.make_node(
            kind, list(inputs), [name], name=name, domain=domain, **attributes))
        return name

    def constant(self, value: Any, dtype: Any = None) -> str:
        """A constant tensor: a NumPy array's, or of text (a list of str)."""
        array = np.asarray(value, dtype)
        if array.dtype.kind in "UO":
            array = array.astype(object)
        name = f"{INTERNAL}constant_{len(self.constants)}"
        self.constants.append(self.onnx.numpy_helper.from_array(array, name))
        return name

    def cast(self, name: str, to: str) -> str:
        """A tensor in another type: ``FLOAT``, ``DOUBLE``, ``INT64``."""
        return self.op("Cast", name, to=getattr(self.onnx.TensorProto, to))

    def where(self, condition: str, yes: str, no: str) -> str:
        return self.op("Where", condition, yes, no)

    def input(self, name: str, kind: str) -> str:
        """A column of the input: ``[rows, 1]``."""
        self.inputs.append(self._info(name, kind, ["rows", 1]))
        return name

    def output(self, tensor: str, name: str, kind: str, shape: list[Any]) -> None:
        """Make a tensor an output by this name."""
        self.nodes.append(self.onnx.helper.make_node("Identity", [tensor], [name]))
        self.outputs.append(self._info(name, kind, shape))

    def _info(self, name: str, kind: str, shape: list[Any]) -> Any:
        return self.onnx.helper.make_tensor_value_info(
            name, getattr(self.onnx.TensorProto, kind), shape)

    def model(self, name: str, about: dict[str, str]) -> bytes:
        """The model's bytes, after ONNX's own check."""
        helper = self.onnx.helper
        graph = helper.make_graph(self.nodes, name, self.inputs, self.outputs, self.constants)
        made = helper.make_model(
            graph, producer_name="gpupipe", ir_version=IR, opset_imports=[
                helper.make_opsetid("", OPSET), helper.make_opsetid(ML, ML_OPSET)])
        helper.set_model_props(made, about)
        self.onnx.checker.check_model(made)
        content: bytes = made.SerializeToString()
        return content


@dataclass(frozen=True)
class Whole:
    """An int64 tensor that is reckoned with as a NumPy array is: what takes a date apart by integer
    arithmetic (`engine.calendar`) so writes it as operators."""

    build: Builder
    name: str

    def _with(self, kind: str, other: Whole | int) -> Whole:
        return Whole(self.build, self.build.op(kind, self.name, self._name(other)))

    def _name(self, value: Whole | int) -> str:
        return value.name if isinstance(value, Whole) else self.build.constant(value, np.int64)

    def __add__(self, other: Whole | int) -> Whole:
        return self._with("Add", other)

    def __sub__(self, other: Whole | int) -> Whole:
        return self._with("Sub", other)

    def __mul__(self, other: Whole | int) -> Whole:
        return self._with("Mul", other)

    __radd__, __rmul__ = __add__, __mul__

    def __mod__(self, other: int) -> Whole:
        return self._with("Mod", other)  # of the divisor's sign, as Python's

    def __floordiv__(self, other: int) -> Whole:
        return (self - self % other)._with("Div", other)  # exact: ONNX rounds towards 0

    def __lt__(self, other: int) -> Whole:
        return self._truth("Less", other)

    def __le__(self, other: int) -> Whole:
        return self._truth("LessOrEqual", other)

    def _truth(self, kind: str, other: int) -> Whole:
        return Whole(self.build, self.build.cast(self._with(kind, other).name, "INT64"))


class WholeNumbers:
    """The array library of `Whole`."""

    @staticmethod
    def where(condition: Whole, yes: Whole, no: Whole) -> Whole:
        build = condition.build
        truth = build.op("Cast", condition.name, to=build.onnx.TensorProto.BOOL)
        return Whole(build, build.where(truth, yes.name, no.name))
