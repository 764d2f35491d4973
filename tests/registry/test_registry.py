"""Versions are whole, immutable and numbered once; an alias is the last of its moves."""

from __future__ import annotations

import json
import os
import signal
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from bundles import memory_store, renamed
from common.quick import settings as quick
from common.quick import small_table
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import gpupipe
from gpupipe.bundle.store import CAPS, members_of
from gpupipe.cli.outcome import call
from gpupipe.errors import ConfigError, DataError
from gpupipe.registry import Conflict, Registry, add, fetch, resolve, stamp, verify
from gpupipe.registry.names import split_name, split_reference

WRITABLE = 0o644


@pytest.fixture(scope="module")
def three(bundle, tmp_path_factory) -> Registry:
    """A registry with three versions of ``m``, for tests that leave its aliases alone."""
    folder = tmp_path_factory.mktemp("three")
    registry = Registry(folder / "models")
    for i in range(3):
        add(registry, "m", renamed(bundle, folder / "variants", f"v{i}"))
    return registry


def versions(registry: Registry, name: str, count: int, variant) -> None:
    for i in range(count):
        add(registry, name, variant(f"v{i}"))


# Versions ------------------------------------------------------------------------------------


def test_a_version_says_who_when_why_and_what(registry, bundle):
    made = add(registry, "churn", bundle, added=stamp("the first", "ada"))
    assert (made.version, made.added.who, made.added.why) == (1, "ada", "the first")
    assert made.added.when.endswith("+00:00")
    found = registry.version("churn", 1)
    assert found == made
    info = gpupipe.load(bundle).info
    assert found.data == info["data"] and found.target == "label" and found.task == "binary"
    assert set(found.members) == set(CAPS)
    assert registry.names() == ["churn"] and registry.versions("churn") == [made]


def test_the_same_bundle_twice_is_one_version_and_others_are_counted_up(registry, bundle, variant):
    assert [add(registry, "m", variant(n)).version for n in "abacb"] == [1, 2, 1, 3, 2]
    assert add(registry, "other", variant("a")).version == 1


def test_what_comes_out_is_what_went_in_to_the_byte(registry, bundle):
    made = add(registry, "m", bundle)
    for member in CAPS:
        assert registry.member(made, member) == (bundle / member).read_bytes()
    assert verify(registry, made)["members"] == len(CAPS)


@pytest.mark.parametrize("same", [True, False])
def test_two_adds_at_once_get_two_numbers_or_one_where_the_bundle_is_the_same(
    registry, variant, same
):
    folders = [variant("same" if same else f"at once {i}".replace(" ", "-")) for i in range(6)]
    gate = threading.Barrier(6)

    def one(folder: Path) -> int:
        gate.wait()
        return add(registry, "m", folder).version

    with ThreadPoolExecutor(6) as pool:
        numbers = sorted(pool.map(one, folders))
    assert numbers == ([1] * 6 if same else [1, 2, 3, 4, 5, 6])
    assert [v.version for v in registry.versions("m")] == sorted(set(numbers))


def _adds(arguments: tuple[str, list[Path]]) -> list[int]:
    url, folders = arguments
    registry = Registry(url)
    return [registry.add("m", members_of(f), {"task": "binary", "target": "y"}).version
            for f in folders]


def test_processes_that_add_at_once_agree_on_every_number(variant, tmp_path):
    folders = [variant(f"v{i}") for i in range(6)]
    url = str(tmp_path / "models")
    orders = [folders, folders[::-1], folders[3:] + folders[:3]]
    with get_context("fork").Pool(3) as pool:
        found = pool.map(_adds, [(url, order) for order in orders], chunksize=1)
    numbers = [dict(zip(order, got, strict=True)) for order, got in zip(orders, found, strict=True)]
    assert numbers[0] == numbers[1] == numbers[2]
    assert sorted(numbers[0].values()) == [v.version for v in Registry(url).versions("m")] == [
        1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("at", ["bundle.json", "golden.json", "hashes.json"])
def test_an_add_that_is_killed_leaves_nothing_to_see_and_can_be_done_again(
    at, bundle, variant, tmp_path
):
    registry = Registry(tmp_path / "models")
    first = add(registry, "m", variant("first"))
    facts = {"task": first.task, "target": first.target}
    process = os.fork()
    if not process:  # the child: it dies in the middle of the add
        os.environ["GPUPIPE_CRASH_AT"] = f"registry: {at}"
        registry.add("m", members_of(bundle), facts)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == -signal.SIGKILL
    assert [v.version for v in registry.versions("m")] == [1]
    with pytest.raises(DataError, match="no version 2"):
        registry.version("m", 2)
    again = add(registry, "m", bundle)
    assert again.version == 2
    verify(registry, again)
    assert list((tmp_path / "models" / ".parts").iterdir()) == []


def test_what_a_file_browser_leaves_is_no_model_version_or_alias(bundle, tmp_path):
    registry = Registry(tmp_path / "models")
    add(registry, "m", bundle)
    registry.move("m", "champion", 1, seen=None)
    for place in ("", "m", "m/versions", "m/aliases", "m/aliases/champion"):
        (tmp_path / "models" / place / ".DS_Store").write_bytes(b"x")
    (tmp_path / "models" / "notes").mkdir()
    assert registry.names() == ["m"] and registry.aliases("m") == {"champion": 1}
    assert len(registry.versions("m")) == len(registry.history("m")) == 1


def test_a_folder_that_is_no_bundle_is_not_added(registry, bundle, tmp_path):
    with pytest.raises(DataError, match="not a whole bundle"):
        add(registry, "m", tmp_path)
    with pytest.raises(DataError, match="no registry here"):
        registry.names()


# A version is immutable ----------------------------------------------------------------------


@pytest.mark.parametrize("member", CAPS)
def test_a_changed_member_is_refused_wherever_it_is_met(member, bundle, tmp_path):
    registry = Registry(tmp_path / "models")
    made = add(registry, "m", bundle)
    path = tmp_path / "models" / "m" / "bundles" / made.digest / member
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.chmod(WRITABLE)
    path.write_bytes(bytes(content))
    for meet in (lambda: verify(registry, made), lambda: resolve(f"{registry.store.url}/m@1"),
                 lambda: registry.member(made, member), lambda: add(registry, "m", bundle)):
        with pytest.raises(DataError, match=member):
            meet()


def test_a_changed_object_in_a_bucket_is_refused_also_where_it_was_fetched_before(
    bundle, tmp_path, monkeypatch
):
    import obstore

    monkeypatch.setenv("GPUPIPE_CACHE", str(tmp_path / "cache"))
    registry = Registry(memory_store())
    made = add(registry, "m", bundle)
    fetch(registry, made)
    obstore.put(registry.store.store, f"m/bundles/{made.digest}/golden.json", b"{}")
    with pytest.raises(DataError, match=r"golden\.json was changed after version 1"):
        verify(registry, made)
    monkeypatch.setenv("GPUPIPE_CACHE", str(tmp_path / "other"))
    with pytest.raises(DataError, match=r"golden\.json was changed after version 1"):
        fetch(registry, made)
    assert list((tmp_path / "other" / "bundles").iterdir()) == []


def test_a_whole_other_bundle_in_a_version_s_place_is_refused(bundle, variant, tmp_path):
    registry = Registry(tmp_path / "models")
    made, other = add(registry, "m", bundle), variant("other")
    folder = tmp_path / "models" / "m" / "bundles" / made.digest
    for member in CAPS:  # sound in itself: its own hashes, its own golden rows
        (folder / member).chmod(WRITABLE)
        (folder / member).write_bytes((other / member).read_bytes())
    gpupipe.load(folder)
    with pytest.raises(DataError, match="changed after version 1 was added"):
        resolve(f"{registry.store.url}/m@1")


def test_a_changed_record_is_refused(bundle, tmp_path):
    registry = Registry(tmp_path / "models")
    add(registry, "m", bundle)
    path = tmp_path / "models" / "m" / "versions" / "00000001.json"
    data = json.loads(path.read_text())
    path.chmod(WRITABLE)
    for edit, words in (({"digest": "0" * 64}, "agree with itself"),
                        ({"version": 2}, "agree with itself"), ({"format": 9}, "format"),
                        ({"members": []}, "members is no dict"), ({"version": "1"}, "is no int"),
                        ({"surplus": 1}, "surplus")):
        path.write_text(json.dumps({**data, **edit}))
        with pytest.raises(DataError, match=words):
            registry.version("m", 1)
    for content in ("", "[]", "{", "null", "[" * 100_000):
        path.write_text(content)
        with pytest.raises(DataError, match="not a registry's record"):
            registry.version("m", 1)
    path.write_bytes(b" " * (5 << 20))
    with pytest.raises(DataError, match="larger than"):
        registry.version("m", 1)


@pytest.mark.parametrize("what", ["m", "m/versions", "m/versions/00000001.json", "m/aliases"])
def test_a_symbolic_link_is_refused(what, bundle, tmp_path):
    registry = Registry(tmp_path / "models")
    add(registry, "m", bundle)
    registry.move("m", "champion", 1, seen=None)
    path = tmp_path / "models" / what
    path.rename(tmp_path / "moved")
    path.symlink_to(tmp_path / "moved")
    with pytest.raises(DataError, match="symbolic link"):
        resolve(f"{registry.store.url}/m@champion")


# Aliases -------------------------------------------------------------------------------------


def test_an_alias_is_its_last_move_and_the_history_keeps_every_one(registry, variant):
    versions(registry, "m", 3, variant)
    seen = None
    for i, version in enumerate((1, 3, 2)):
        seen = registry.move("m", "champion", version, seen=seen, moved=stamp(f"why {i}", "ada"),
                             gates={"ok": True})
    registry.move("m", "challenger", 3, seen=None)
    assert registry.aliases("m") == {"challenger": 3, "champion": 2}
    assert registry.alias("m", "champion") == seen
    moves = registry.history("m", "champion")
    assert [(e.number, e.before, e.version, e.moved.why) for e in moves] == [
        (1, None, 1, "why 0"), (2, 1, 3, "why 1"), (3, 3, 2, "why 2")]
    assert moves[0].gates == {"ok": True}
    assert [e.alias for e in registry.history("m")] == ["champion"] * 3 + ["challenger"]


def test_a_move_that_saw_an_older_state_is_told_what_is_there_now(registry, variant):
    versions(registry, "m", 3, variant)
    first = registry.move("m", "champion", 1, seen=None)
    registry.move("m", "champion", 2, seen=first, moved=stamp("quicker", "bo"))
    for seen in (None, first):
        with pytest.raises(Conflict, match="moved to version 2 by bo") as caught:
            registry.move("m", "champion", 3, seen=seen)
        assert caught.value.now.version == 2 and caught.value.exit_code == 4
    assert registry.aliases("m") == {"champion": 2}


def test_a_rollback_goes_back_and_a_rollback_of_it_comes_again(registry, variant):
    versions(registry, "m", 3, variant)
    for version in (1, 2, 3):
        registry.move("m", "champion", version, seen=registry.alias("m", "champion"))
    assert registry.rollback("m", "champion").version == 2
    assert registry.rollback("m", "champion").version == 3
    assert registry.rollback("m", "champion", 1).version == 1
    moves = registry.history("m", "champion")
    assert [e.action for e in moves] == ["promote"] * 3 + ["rollback"] * 3
    assert [(e.before, e.version) for e in moves[3:]] == [(3, 2), (2, 3), (3, 1)]


def test_a_rollback_has_to_have_somewhere_to_go(registry, variant):
    versions(registry, "m", 2, variant)
    with pytest.raises(DataError, match="no alias 'champion'"):
        registry.rollback("m", "champion")
    registry.move("m", "champion", 1, seen=None)
    with pytest.raises(DataError, match="at version 1 alone"):
        registry.rollback("m", "champion")
    with pytest.raises(DataError, match="never been at version 2"):
        registry.rollback("m", "champion", 2)


def test_a_reason_too_long_to_be_read_again_is_refused(three):
    alias = f"a{uuid.uuid4().hex}"
    with pytest.raises(ConfigError, match="fewer words"):
        three.move("m", alias, 1, seen=None, moved=stamp("x" * (5 << 20)))
    assert three.alias("m", alias) is None


def test_an_alias_can_only_point_at_what_is_there(registry, bundle):
    add(registry, "churn", bundle)
    with pytest.raises(DataError, match="no version 2"):
        registry.move("churn", "champion", 2, seen=None)
    with pytest.raises(DataError, match="did you mean 'churn'"):
        registry.move("chrun", "champion", 1, seen=None)
    assert registry.aliases("churn") == {}


def test_a_history_that_was_meddled_with_is_refused(bundle, variant, tmp_path):
    registry = Registry(tmp_path / "models")
    versions(registry, "m", 2, variant)
    for version in (1, 2, 1):
        registry.move("m", "champion", version, seen=registry.alias("m", "champion"))
    folder = tmp_path / "models" / "m" / "aliases" / "champion"
    second = folder / "00000002.json"
    kept = second.read_text()
    second.chmod(WRITABLE)
    second.write_text(kept.replace('"why": ""', '"why": "I was told to"'))
    with pytest.raises(DataError, match="move 3 does not follow"):
        registry.history("m")
    second.unlink()
    with pytest.raises(DataError, match="move 3 does not follow"):
        registry.rollback("m", "champion")


def _promotes(arguments: tuple[str, int, int]) -> tuple[int, list[int], list[int]]:
    """Promote versions in turn from wherever the alias is seen; how many wins, who was in front."""
    url, process, rounds = arguments
    registry, won, told = Registry(url), [], []
    for i in range(rounds):
        version = process + 1
        seen = registry.alias("m", "champion")
        try:
            event = registry.move("m", "champion", version, seen=seen,
                                  moved=stamp(f"{process}/{i}", str(process)))
            won.append(event.number)
        except Conflict as conflict:
            assert conflict.now is not None and conflict.now.number > (seen.number if seen else 0)
            told.append(conflict.now.version)
    return process, won, told


def test_of_promotions_at_once_from_several_processes_one_wins_each_step(variant, tmp_path):
    registry = Registry(tmp_path / "models")
    processes, rounds = 4, 30
    versions(registry, "m", processes, variant)
    with get_context("fork").Pool(processes) as pool:
        found = pool.map(_promotes, [(registry.store.url, p, rounds) for p in range(processes)],
                         chunksize=1)
    moves = registry.history("m", "champion")
    winners = sorted((number, process) for process, won, _ in found for number in won)
    assert [n for n, _ in winners] == list(range(1, len(moves) + 1))
    assert [(e.number, int(e.moved.who)) for e in moves] == winners
    assert all(len(won) + len(told) == rounds for _, won, told in found)
    assert [e.before for e in moves] == [None, *(e.version for e in moves[:-1])]
    assert registry.aliases("m") == {"champion": moves[-1].version}


MOVES = st.lists(st.tuples(st.integers(0, 2), st.booleans(), st.integers(1, 3)), max_size=12)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(moves=MOVES)
def test_any_interleaving_of_movers_is_a_history_without_gaps(three, moves):
    """Movers look and move at different times; each succeeds just if nobody moved in between."""
    alias, seen, model = f"a{uuid.uuid4().hex}", dict.fromkeys(range(3)), []
    for mover, look, version in moves:
        if look:
            seen[mover] = three.alias("m", alias)
            continue
        known = seen[mover].number if seen[mover] else 0
        try:
            seen[mover] = three.move("m", alias, version, seen=seen[mover])
            assert known == len(model)
            model.append(version)
        except Conflict as conflict:
            assert known < len(model) and conflict.now.version == model[-1]
    assert [e.version for e in three.history("m", alias)] == model


def test_a_run_adds_itself(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    pq.write_table(small_table(), "t.parquet")
    Path("pipeline.yaml").write_text(json.dumps(quick()))
    code = call(["run", "pipeline.yaml", "--register", "models/churn", "--json"])
    assert code == 0 and json.loads(capfd.readouterr().out)["registered"] == "models/churn@1"
    (made,) = Registry("models").versions("churn")
    assert made.run == Path("runs/latest").resolve().name and "roc_auc" in made.metrics
    assert made.pipeline["data"]["target"] == "label"
    assert call(["run", "pipeline.yaml", "--register", "churn"]) == 2
    assert len(list(Path("runs").glob("2*"))) == 1  # told before anything was trained


# References ----------------------------------------------------------------------------------


def test_a_reference_is_resolved_by_alias_by_number_and_by_path(three, bundle):
    alias = f"a{uuid.uuid4().hex}"
    three.move("m", alias, 2, seen=None)
    url = three.store.url
    by_alias, by_number = resolve(f"{url}/m@{alias}"), resolve(f"{url}/m@2")
    assert (by_alias.name, by_alias.version, by_alias.alias) == ("m", 2, alias)
    assert (by_number.version, by_number.alias) == (2, None)
    assert by_alias.path == by_number.path and gpupipe.load(by_alias.path).info["name"] == "v1"
    assert resolve(bundle) == (bundle, None, None, None)
    assert resolve(bundle.parent) == (bundle, None, None, None)


@pytest.mark.parametrize("text", [
    "models/..@champion", "models/.m@1", "models/m/@1", "m@1", "models/m@",
    "models/m@0", "models/m@01", "models/m@-1", "models/m@../x", "models/m@a b", "models/m m@1",
    "models/m@a/b", "models/m@999999999", "models/m\0@1", "s3://bucket@1", "models/" + "m" * 101
    + "@1", "models/m@ünï",
])
def test_what_is_no_name_is_refused_before_anything_is_touched(text):
    with pytest.raises(ConfigError):
        split_reference(text)


def test_names_and_registries_are_told_apart():
    assert split_reference("s3://b/p/churn@champion") == ("s3://b/p", "churn", "champion")
    assert split_reference("/srv/models/churn.v2@7") == ("/srv/models", "churn.v2", "7")
    assert split_name("models/churn") == ("models", "churn")
    for bad in ("churn", "s3://churn", "models/..", "models/a..b"):
        with pytest.raises(ConfigError):
            split_name(bad)


@pytest.mark.parametrize("name", ["..", "../x", "a/b", "", ".hidden", "-x", "a..b", "x" * 101])
def test_a_registry_takes_no_other_names(name, registry, bundle):
    for use in (lambda: add(registry, name, bundle), lambda: registry.versions(name),
                lambda: registry.alias("m", name), lambda: registry.history(name)):
        with pytest.raises(ConfigError):
            use()


def test_what_is_not_there_is_named_with_what_is(registry, bundle, tmp_path):
    add(registry, "churn", bundle)
    registry.move("churn", "champion", 1, seen=None)
    with pytest.raises(DataError, match="did you mean 'champion'"):
        registry.number_of("churn", "champoin")
    with pytest.raises(DataError, match="no registry here"):
        resolve(f"{tmp_path}/nowhere/m@champion")
    with pytest.raises(ConfigError, match="no such folder"):
        resolve(tmp_path / "nowhere")


def test_an_object_store_s_bundle_is_fetched_once_and_again_where_it_was_spoilt(
    bundle, tmp_path, monkeypatch
):
    monkeypatch.setenv("GPUPIPE_CACHE", str(tmp_path / "cache"))
    registry = Registry(memory_store())
    made = add(registry, "m", bundle)
    path = fetch(registry, made)
    assert path == tmp_path / "cache" / "bundles" / made.digest
    assert gpupipe.load(path).info == gpupipe.load(bundle).info
    asked = []
    monkeypatch.setattr(registry, "member", lambda *a: asked.append(a) or Registry.member(
        registry, *a))
    assert fetch(registry, made) == path and asked == []
    (path / "golden.json").write_text("{}")
    assert fetch(registry, made) == path and len(asked) == len(CAPS)
    assert (path / "golden.json").read_bytes() == (bundle / "golden.json").read_bytes()
    assert [p.name for p in path.parent.iterdir()] == [made.digest]
