"""A bundle that is not as it was written is refused by one clear error, and runs no code."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import random
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from common.quick import settings, small_table, trained_on, write_bundle

import gpupipe
from gpupipe.bundle import store
from gpupipe.bundle.store import CAPS, read_states
from gpupipe.codec import read_arrays, write_arrays
from gpupipe.errors import DataError

STEPS = [{"impute": {"columns": ["f", "narrow"], "strategy": "mean"}},
         {"target_encode": {"columns": "i"}}, {"one_hot": {"columns": ["s", "b"]}},
         {"datetime": {"parts": ["hour"]}}]
SLOW = bool(os.environ.get("GPUPIPE_SLOW"))
FILLED = [STEPS[0], {"target_encode": {"columns": "i"}}, STEPS[2], {"drop": {"columns": "t"}}]


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "bundle"
    write_bundle(trained_on(small_table(), settings(features=STEPS)), folder)
    return folder


@pytest.fixture(scope="module")
def linear(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("linear") / "bundle"
    config = settings(model={"kind": "linear", "params": {}}, features=FILLED)
    write_bundle(trained_on(small_table(), config), folder)
    return folder


@pytest.fixture
def copy(whole, tmp_path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "bundle"))


def sealed(folder: Path) -> Path:
    """``folder`` with hashes of what its members hold now."""
    hashes = {name: {"sha256": hashlib.sha256((folder / name).read_bytes()).hexdigest(),
                     "size": (folder / name).stat().st_size}
              for name in CAPS if name != "hashes.json"}
    (folder / "hashes.json").write_text(json.dumps(hashes))
    return folder


def refused(folder: Path, *words: str) -> str:
    with pytest.raises(DataError) as caught:
        gpupipe.load(folder)
    message = str(caught.value)
    assert all(word in message for word in words), message
    return message


def change(folder: Path, edit: Callable[[dict[str, Any]], Any], name: str = "bundle.json") -> Path:
    data = json.loads((folder / name).read_text())
    edit(data)
    (folder / name).write_text(json.dumps(data))
    return sealed(folder)


def test_it_loads_as_it_was_written(copy):
    assert gpupipe.load(copy).task == "binary"
    assert gpupipe.load(sealed(copy)).task == "binary"


def test_every_flipped_byte_is_refused(copy):
    rng = random.Random(0)
    for name in CAPS:
        intact = (copy / name).read_bytes()
        for _ in range(60):
            damaged = bytearray(intact)
            damaged[rng.randrange(len(intact))] ^= 1 << rng.randrange(8)
            (copy / name).write_bytes(damaged)
            refused(copy, name if name != "hashes.json" else "")
        for cut in (0, 1, len(intact) // 2, len(intact) - 1):
            (copy / name).write_bytes(intact[:cut])
            refused(copy)
        (copy / name).write_bytes(intact)
    gpupipe.load(copy)


@pytest.mark.parametrize("name", CAPS)
def test_a_missing_member_is_named(copy, name):
    (copy / name).unlink()
    refused(copy, "not a whole bundle", name)


@pytest.mark.parametrize("name", ["extra.py", ".hidden", "bundle.json.bak", "__pycache__"])
def test_a_member_that_does_not_belong_is_named(copy, name):
    (copy / name).mkdir() if name == "__pycache__" else (copy / name).write_text("x")
    refused(copy, name, "does not belong")


@pytest.mark.parametrize("name", CAPS)
def test_a_link_in_a_member_s_place_is_refused(copy, name, tmp_path):
    (copy / name).rename(tmp_path / name)
    (copy / name).symlink_to(tmp_path / name)
    refused(copy, name, "plain file")
    (copy / name).unlink()
    (copy / name).mkdir()
    refused(copy, name, "plain file")


def test_an_oversized_member_is_refused_before_it_is_read(copy):
    with (copy / "golden.json").open("r+b") as file:
        file.truncate(CAPS["golden.json"] + 1)
    refused(copy, "golden.json", "larger than")


@pytest.mark.parametrize("path", ["", "nowhere", "bundle.json"])
def test_what_is_no_bundle_is_refused(path, tmp_path):
    (tmp_path / "bundle.json").write_text("{}")
    refused(tmp_path / path if path else tmp_path / "bundle.json", "bundle")


def _set(path: tuple, value: Any) -> Callable[[Any], None]:
    def edit(data: Any) -> None:
        for key in path[:-1]:
            data = data[key]
        data[path[-1]] = value
    return edit


@pytest.mark.parametrize(("edit", "words"), [
    (_set(("format",), 2), ["format 2", "newer"]),
    (_set(("format",), "1"), ["format '1'"]),
    (_set(("model", "kind"), "os.system"), ["unknown model kind 'os.system'"]),
    (_set(("model", "kind"), ["xgboost"]), ["bundle.json"]),
    (_set(("features", "steps", 0, "step"), "subprocess"), ["unknown step 'subprocess'"]),
    (_set(("features", "steps", 0, "step"), []), ["bundle.json"]),
    (_set(("features", "steps", 0, "config", "strategy"), "eval"), ["'impute'", "malformed"]),
    (_set(("features", "steps", 0, "config", "more"), 1), ["'impute'", "malformed"]),
    (_set(("features", "steps", 0, "input"), ["step", 99, 0]), ["bundle.json"]),
    (_set(("features", "outputs", 0, "from"), ["raw", "nowhere"]), ["nowhere"]),
    (_set(("schema", 0, "dtype"), "object"), ["unknown type 'object'"]),
    (_set(("schema", 0, "name"), "renamed"), ["'f'", "schema lacks"]),
    (_set(("task",), "clustering"), ["clustering"]),
    (_set(("classes",), []), ["bundle.json"]),
    (lambda d: d.pop("task"), ["bundle.json", "task"]),
    (lambda d: d.pop("features"), ["bundle.json", "features"]),
])
def test_a_description_that_cannot_be_is_refused_with_right_hashes_too(copy, edit, words):
    refused(change(copy, edit), *words)


def paths_of(data: Any, at: tuple = ()) -> Iterator[tuple]:
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(
        data, list) else ()
    for key, value in items:
        yield (*at, key)
        yield from paths_of(value, (*at, key))


ODD = (None, -1, "x", [], {}, 10**30, 1e308, True, [[]], {"$array": "a0"}, {"$array": []},
       {"$arrow": ["a0", "a0"], "type": "string"}, "\ud800")


@pytest.mark.parametrize("kind", ["whole", "linear"])
@pytest.mark.parametrize("name", ["bundle.json", "golden.json"])
def test_any_value_anywhere_loads_or_is_a_data_error(kind, name, tmp_path, request):
    copy = Path(shutil.copytree(request.getfixturevalue(kind), tmp_path / "bundle"))
    original = json.loads((copy / name).read_text())
    paths = [p for p in paths_of(original) if p[0] not in ("states", "versions", "split")]
    rng = random.Random(1)
    for path in rng.sample(paths, min(len(paths), 110)):
        for value in rng.sample(ODD, 2):
            data = json.loads(json.dumps(original))
            _set(path, value)(data)
            (copy / name).write_text(json.dumps(data))
            try:
                gpupipe.load(sealed(copy))
            except DataError:
                continue
            except Exception as error:
                pytest.fail(f"{path} = {value!r}: {type(error).__name__}: {error}")


@pytest.mark.parametrize("content", [
    b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"format": 1}',
])
@pytest.mark.parametrize("name", ["bundle.json", "golden.json", "hashes.json"])
def test_malformed_json_is_refused_with_right_hashes_too(copy, name, content):
    (copy / name).write_bytes(content)
    if name != "hashes.json":
        sealed(copy)
    refused(copy, name)


class Trap:
    """What a pickle can do to who loads it."""

    def __reduce__(self) -> tuple:
        return Path.touch, (Path("touched-by-a-pickle"),)


def test_an_object_array_is_refused_and_its_pickle_never_run(copy, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arrays = read_arrays((copy / "arrays.npz").read_bytes(), 1 << 30)
    name = next(iter(arrays))
    buffer = io.BytesIO()
    trap = np.empty(1, dtype=object)
    trap[0] = Trap()
    np.savez(buffer, **{**arrays, name: trap})
    (copy / "arrays.npz").write_bytes(buffer.getvalue())
    refused(sealed(copy), "arrays cannot be read")
    (copy / "arrays.npz").write_bytes(pickle.dumps(Trap()))
    refused(sealed(copy), "arrays cannot be read")
    assert not (tmp_path / "touched-by-a-pickle").exists()
    with pytest.raises(ValueError, match="allow_pickle"):
        write_arrays({"a": trap})


def test_a_zip_bomb_is_refused_before_it_is_unpacked(copy, monkeypatch):
    monkeypatch.setitem(store.CAPS, "arrays.npz", 10 << 20)
    monkeypatch.setitem(store.CAPS, "states.npz", 10 << 20)
    (copy / "arrays.npz").write_bytes(write_arrays({"a0": np.zeros(11 << 20, np.uint8)}))
    assert (copy / "arrays.npz").stat().st_size < 1 << 20
    refused(sealed(copy), "unpack to", "above 10,485,760")
    (copy / "states.npz").write_bytes((copy / "arrays.npz").read_bytes())
    with pytest.raises(DataError, match="unpack to"):
        read_states(sealed(copy))


def zipped(members: dict[str, bytes], lie: int | None = None) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    data = buffer.getvalue()
    if lie is not None:
        size = len(next(iter(members.values()))).to_bytes(4, "little")
        data = data.replace(size, lie.to_bytes(4, "little"))
    return data


def npy(header: bytes, content: bytes = b"") -> bytes:
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + content


HEADER = b"{'descr': '<f8', 'fortran_order': False, 'shape': (%s), }\n"


@pytest.mark.parametrize("content", [
    b"", b"PK", zipped({}), zipped({"a0.npy": b""}), zipped({"a0.npy": b"\x93NUMPY\x09\x00"}),
    zipped({"a0.npy": npy(HEADER % b"1000000000000,")}),
    zipped({"a0.npy": npy(HEADER % b"-1,")}),
    zipped({"a0.npy": npy(b"__import__('os').abort()\n")}),
    zipped({"a0.npy": npy(b"(" * 5000)}),
    zipped({"a0.npy": bytes(1 << 20)}, lie=10),
    zipped({"../../a0.npy": npy(HEADER % b"0,")}), zipped({"/etc/a0.npy": npy(HEADER % b"0,")}),
], ids=range(12))
def test_an_archive_of_rubbish_is_refused_with_right_hashes_too(copy, content):
    (copy / "arrays.npz").write_bytes(content)
    refused(sealed(copy))


@pytest.mark.parametrize("kind", ["whole", "linear"])
def test_any_damage_to_an_array_loads_or_is_a_data_error(kind, tmp_path, request):
    copy = Path(shutil.copytree(request.getfixturevalue(kind), tmp_path / "bundle"))
    arrays = read_arrays((copy / "arrays.npz").read_bytes(), 1 << 30)
    odd = (np.empty(0), np.zeros(3, np.int8), np.full(7, np.nan), np.zeros((2, 2)),
           np.array("x"), np.array([2**62]), np.zeros(1, "M8[us]"))
    for name in arrays:
        for value in odd:
            (copy / "arrays.npz").write_bytes(write_arrays({**arrays, name: value}))
            try:
                gpupipe.load(sealed(copy))
            except DataError:
                continue
            except Exception as error:
                pytest.fail(f"{name} = {value!r}: {type(error).__name__}: {error}")


@pytest.mark.parametrize(("edit", "words"), [
    (lambda g: g["features"][3].__setitem__(0, (7.0).hex()), ["golden row 3", "another"]),
    (lambda g: g["scores"].__setitem__(5, g["scores"][5] + 1e-4), ["0.0001", "off"]),
    (lambda g: g["inputs"]["i"].__setitem__(0, 3), ["golden row 0", "'i'"]),
    (lambda g: g["features"].pop(), ["golden.json"]),
    (lambda g: g["scores"].pop(), ["golden.json"]),
    (lambda g: [v.pop() for v in g["inputs"].values()], ["golden.json"]),
    (lambda g: g["inputs"].pop("f"), ["golden.json"]),
    (lambda g: g.clear(), ["golden.json"]),
    (lambda g: g["scores"].__setitem__(0, None), ["golden rows"]),
    (lambda g: g.update(features=[], scores=[], inputs={k: [] for k in g["inputs"]}),
     ["golden.json"]),
])
def test_golden_rows_that_disagree_refuse_to_serve(copy, edit, words):
    refused(change(copy, edit, "golden.json"), *words)


def test_a_changed_model_is_caught_by_the_golden_rows(linear, tmp_path):
    copy = Path(shutil.copytree(linear, tmp_path / "bundle"))
    arrays = read_arrays((copy / "arrays.npz").read_bytes(), 1 << 30)
    description = json.loads((copy / "bundle.json").read_text())
    name = description["model"]["intercept"]["$array"]
    arrays[name] = arrays[name] + 0.01
    (copy / "arrays.npz").write_bytes(write_arrays(arrays))
    refused(sealed(copy), "golden rows", "off")


def test_of_many_random_bytes_none_is_scored_wrongly_in_silence(copy, whole):
    rng, rows = random.Random(2), small_table(5, seed=3)
    expected = gpupipe.load(whole).scores(rows).tobytes()
    intact = {name: (copy / name).read_bytes() for name in CAPS}
    refusals = 0
    count = 10_000 if SLOW else 400
    for _ in range(count):
        name = rng.choice(list(CAPS))
        damaged = bytearray(intact[name])
        at = rng.randrange(len(damaged))
        damaged[at] = rng.choice([b for b in range(256) if b != damaged[at]])
        (copy / name).write_bytes(damaged)
        try:
            found = gpupipe.load(copy)
        except DataError:
            refusals += 1
        else:  # one kind of space for another in hashes.json, say
            assert name == "hashes.json" and found.scores(rows).tobytes() == expected
        (copy / name).write_bytes(intact[name])
    assert refusals > 0.98 * count


@pytest.mark.parametrize("name", ["../bundle.json", "/etc/passwd", "..", "bundle.json/../x"])
def test_hashes_of_files_elsewhere_are_refused(copy, name):
    hashes = json.loads((copy / "hashes.json").read_text())
    hashes[name] = hashes["bundle.json"]
    (copy / "hashes.json").write_text(json.dumps(hashes))
    refused(copy, "hashes.json")
    del hashes["bundle.json"]
    (copy / "hashes.json").write_text(json.dumps(hashes))
    refused(copy, "hashes.json")


RESEALED = """
import faulthandler, json, random, shutil, sys
from pathlib import Path

faulthandler.enable()
faulthandler.dump_traceback_later(float(sys.argv[3]), exit=True)
import numpy as np
from bundle_damage import damaged
import gpupipe
from common.quick import COLUMNS, small_table
from gpupipe.errors import DataError

folder, rng = Path(sys.argv[1]), random.Random(4)
rows = small_table(5, seed=3).select(list(COLUMNS))
records = rows.to_pylist()
loaded = refused = 0
for _ in range(int(sys.argv[2])):
    try:
        bundle = gpupipe.load(damaged(folder, rng))
        table = bundle.described(*bundle.scored(rows))
        assert repr(table) == repr([bundle.predict_one(r) for r in records])
        loaded += 1
    except DataError:
        refused += 1
print(json.dumps([loaded, refused]))
"""


def test_damage_under_right_hashes_is_refused_or_scored_as_it_is_written(copy, whole):
    """In a process of its own, which neither dies, nor hangs, nor ends by another exception."""
    count = 2_000 if SLOW else 120
    done = subprocess.run(
        [sys.executable, "-c", RESEALED, str(copy), str(count), str(1200 if SLOW else 240)],
        capture_output=True, text=True, check=False, cwd=copy.parent,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(
            [str(Path(__file__).parents[2]), str(Path(__file__).parents[1]),
             str(Path(__file__).parents[1] / "common")])})
    assert done.returncode == 0, done.stderr[-3000:]
    loaded, refusals = json.loads(done.stdout)
    assert loaded + refusals == count and refusals > count / 4
