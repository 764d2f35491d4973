"""Plain data to files and back: JSON for structure, ``.npz`` without pickle for arrays.

A NumPy array inside a structure becomes ``{"$array": name}``, an Arrow array
``{"$arrow": name}``; the arrays themselves go to one archive. A key of the user's that begins
with ``$`` (a column may be called ``$array``) is written with one more. Nothing that is read
here can name code: reading yields numbers, text and arrays, and nothing else.
"""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gpupipe.engine.hashing import text_parts
from gpupipe.errors import DataError

ARRAY, ARROW, BYTES = "$array", "$arrow", "$bytes"
ARROW_NUMBERS = {"int64": pa.int64(), "float64": pa.float64(), "bool": pa.bool_()}


def pack(value: Any, arrays: dict[str, np.ndarray]) -> Any:
    """``value`` as JSON data; its arrays are added to ``arrays`` under new names."""
    if isinstance(value, np.ndarray):
        name = f"a{len(arrays)}"
        arrays[name] = value
        return {ARRAY: name}
    if isinstance(value, pa.Array):
        return {ARROW: _pack_arrow(value, arrays), "type": _type_name(value.type)}
    if isinstance(value, (bytes, bytearray)):
        name = f"a{len(arrays)}"
        arrays[name] = np.frombuffer(bytes(value), np.uint8)
        return {BYTES: name}
    if isinstance(value, Mapping):
        return {f"${k}" if str(k).startswith("$") else str(k): pack(v, arrays)
                for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [pack(v, arrays) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return {"$float": str(value)}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"a bundle cannot hold a {type(value).__name__}")


def unpack(value: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    """What `pack` was given. DataError where an array is missing or malformed."""
    if isinstance(value, list):
        return [unpack(v, arrays) for v in value]
    if not isinstance(value, dict):
        return value
    try:
        if ARRAY in value:
            return arrays[value[ARRAY]]
        if BYTES in value:
            return arrays[value[BYTES]].tobytes()
        if ARROW in value:
            return _unpack_arrow(value[ARROW], value["type"], arrays)
        if "$float" in value:
            return float(value["$float"])
    except (KeyError, TypeError, ValueError, pa.ArrowInvalid) as error:
        raise DataError(f"a bundle's arrays do not fit its structure: {error}") from None
    return {k.removeprefix("$"): unpack(v, arrays) for k, v in value.items()}


def _type_name(arrow: pa.DataType) -> str:
    if pa.types.is_string(arrow) or pa.types.is_large_string(arrow):
        return "string"
    for name, known in ARROW_NUMBERS.items():
        if arrow == known:
            return name
    raise TypeError(f"a bundle cannot hold an Arrow array of {arrow}")


def _pack_arrow(array: pa.Array, arrays: dict[str, np.ndarray]) -> list[str]:
    """Strings as UTF-8 bytes and their lengths; numbers as they are. Nulls as a mask after them."""
    mask = array.is_null().to_numpy(zero_copy_only=False) if array.null_count else None
    if mask is not None:
        array = array.fill_null({"string": "", "bool": False}.get(_type_name(array.type), 0))
    if _type_name(array.type) != "string":
        parts = [array.to_numpy(zero_copy_only=False)]
    else:
        data, offsets = text_parts(array)
        parts = [data, np.diff(offsets)]
    parts += [mask] if mask is not None else []
    names = []
    for part in parts:
        names.append(f"a{len(arrays)}")
        arrays[names[-1]] = part
    return names


def _unpack_arrow(names: list[str], kind: str, arrays: Mapping[str, np.ndarray]) -> pa.Array:
    if kind != "string":
        mask = arrays[names[1]] if len(names) > 1 else None
        return pa.array(arrays[names[0]], ARROW_NUMBERS[kind], mask=mask)
    data, lengths = arrays[names[0]], arrays[names[1]]
    if lengths.dtype != np.int64 or data.dtype != np.uint8:
        raise ValueError("text and its lengths are of other types than they were written")
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
    if offsets[-1] != len(data) or (lengths < 0).any():
        raise ValueError("text and its lengths disagree")
    strings = pa.LargeStringArray.from_buffers(
        len(lengths), pa.py_buffer(offsets.tobytes()), pa.py_buffer(data.tobytes())
    )
    strings.validate(full=True)
    plain = strings.cast(pa.string())
    if len(names) < 3:
        return plain
    return pc.if_else(pa.array(arrays[names[2]], pa.bool_()), pa.scalar(None, pa.string()), plain)


def write_arrays(arrays: Mapping[str, np.ndarray]) -> bytes:
    """An ``.npz`` archive. Two calls with the same arrays give the same bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, array in arrays.items():
            member = io.BytesIO()
            np.lib.format.write_array(member, np.ascontiguousarray(array), allow_pickle=False)
            # A fixed time stamp keeps the bytes, and so the hash, the same.
            archive.writestr(zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0)),
                             member.getvalue(), zipfile.ZIP_DEFLATED, compresslevel=1)
    return buffer.getvalue()


def read_arrays(data: bytes, limit: int) -> dict[str, np.ndarray]:
    """The arrays of an archive that unpacks to at most ``limit`` bytes. DataError otherwise."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            size = sum(info.file_size for info in archive.infolist())
            if size > limit:
                raise DataError(f"a bundle's arrays unpack to {size:,} bytes, above {limit:,}")
            arrays = {}
            for info in archive.infolist():
                with archive.open(info) as member:
                    content = io.BytesIO(member.read(info.file_size + 1))
                name = info.filename.removesuffix(".npy")
                arrays[name] = np.lib.format.read_array(content, allow_pickle=False)
            return arrays
    except DataError:
        raise
    except Exception as error:  # zipfile and NumPy's header parser raise some ten kinds
        told = str(error).partition("\n")[0][:200]
        raise DataError(f"a bundle's arrays cannot be read: {told}") from error
