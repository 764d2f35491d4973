"""Conda environments and images: they agree with pyproject.toml, and hold together."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

import pytest
import yaml

from gpupipe.doctor import within

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
DOCKER = ROOT / "docker"
IMAGES = sorted(DOCKER.glob("Dockerfile*"))
each_image = pytest.mark.parametrize("image", IMAGES, ids=lambda p: p.name)
TOOLS = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])


# Conda ---------------------------------------------------------------------------------------


def conda_of(requirement: str) -> dict[str, str]:
    """A requirement of pyproject.toml as conda packages with their bounds."""
    found = re.fullmatch(r"([\w-]+)(?:\[([\w,]+)\])?(.*)", requirement)
    assert found, requirement
    name, extras, bounds = found.groups()
    name = re.sub(r"-cu(da)?1[23]x?$", "", name)
    if bounds.endswith(".*"):
        bounds = bounds.replace("==", "=")
    # Conda's cuml has no extras: what the extra adds is a package of its own.
    return {name: bounds} | ({"raft-dask": bounds} if (name, extras) == ("cuml", "dask") else {})


def packages(file: Path) -> dict[str, str]:
    """The packages of a conda environment with their bounds."""
    listed = [d for d in yaml.safe_load(file.read_text())["dependencies"] if isinstance(d, str)]
    found = dict(re.fullmatch(r"([\w-]+)(.*)", d).groups() for d in listed)  # type: ignore[union-attr]
    assert len(found) == len(listed), "a package is named twice"
    return found


@pytest.mark.parametrize(
    ("file", "extras"),
    [("environment.yml", ["dask", "gpu-cu13"]), ("environment.yml", ["dask", "gpu-cu12"]),
     ("docker/environment-cpu.yml", ["dask"])],
)
def test_a_conda_environment_has_the_bounds_of_pyproject_and_nothing_else(file, extras):
    wanted = [*PROJECT["dependencies"], *(r for e in extras for r in EXTRAS[e])]
    expected = {k: v for r in wanted for k, v in conda_of(r).items()}
    found = packages(ROOT / file)
    python = found.pop("python").lstrip("=")
    assert within(python, PROJECT["requires-python"])
    assert python == defaults(DOCKER / "Dockerfile.cpu")["PYTHON"]
    if len(extras) > 1:
        assert found.pop("cuda-version") == "=13.*"
    assert found.pop("pip") == ""
    assert found == expected


@pytest.mark.parametrize("file", ["environment.yml", "docker/environment-cpu.yml"])
def test_a_conda_environment_installs_gpupipe_from_this_folder(file):
    environment = yaml.safe_load((ROOT / file).read_text())
    (pip,) = [d["pip"] for d in environment["dependencies"] if isinstance(d, dict)]
    assert [((ROOT / file).parent / p).resolve() for p in pip] == [ROOT]
    assert environment["channels"] == ["rapidsai", "conda-forge"][file != "environment.yml":]


# Images --------------------------------------------------------------------------------------


def instructions(image: Path) -> list[tuple[str, str]]:
    lines = [x for x in image.read_text().splitlines() if not x.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [(w, rest.strip()) for w, _, rest in (x.partition(" ") for x in joined.splitlines())
            if w]


def defaults(image: Path) -> dict[str, str]:
    """The build arguments with their defaults."""
    return dict(value.split("=") for word, value in instructions(image) if word == "ARG")


def sent(path: PurePosixPath) -> bool:
    """Whether a file goes to the engine that builds, by .dockerignore: the last match decides."""
    answer = True
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        pattern = line.removeprefix("!")
        names = [*path.parts] if pattern.startswith("**/") else [path, *path.parents][:-1]
        if line and line[0] != "#" and any(
            fnmatch(str(n), pattern.removeprefix("**/")) for n in names
        ):
            answer = line.startswith("!")
    return answer


def tracked(under: str) -> list[str]:
    listed = subprocess.run(["git", "ls-files", under], cwd=ROOT, capture_output=True, text=True,
                            check=True)
    return listed.stdout.split()


@each_image
def test_whatever_an_image_copies_is_there_and_is_sent(image):
    copied = [s for word, value in instructions(image) if word == "COPY"
              for s in value.split()[:-1]]
    assert {"gpupipe", "pyproject.toml"} <= set(copied)
    for source in copied:
        assert (ROOT / source).exists(), source
        files = [f for f in tracked(source) if (ROOT / f).is_file()]
        assert files, source
        assert [f for f in files if not sent(PurePosixPath(f))] == []


def test_nothing_else_is_sent():
    needless = [".git/config", "tests/conftest.py", "runs/latest/report.html", "docs/cli.md",
                "gpupipe/__pycache__/doctor.cpython-312.pyc", "scripts/make_data.py"]
    assert [f for f in needless if sent(PurePosixPath(f))] == []


@each_image
def test_what_an_image_installs_is_this_package_with_extras_that_it_has(image):
    installs = [line for word, value in instructions(image) if word == "RUN"
                for line in value.split("&&") if "pip install" in line]
    assert installs
    for line in installs:
        words = shlex.split(line)
        assert "--no-cache-dir" in words
        found = re.fullmatch(r"\.(?:\[([\w,-]+)\])?", words[-1])
        assert found, f"{words[-1]}: versions belong into pyproject.toml"
        assert set(filter(None, (found[1] or "").split(","))) <= set(EXTRAS)


@each_image
def test_an_image_is_for_no_root_tells_its_health_and_starts_gpupipe(image):
    last = dict(instructions(image))
    assert last["USER"].isdigit()  # so that a cluster can see that it is not root
    assert int(last["USER"]) > 0
    health = "/health/ready" if image.name == "Dockerfile.serve" else '["gpupipe", "doctor"]'
    assert health in last["HEALTHCHECK"]
    assert last["ENTRYPOINT"] == '["gpupipe"]'


def test_the_rapids_image_has_the_versions_of_pyproject():
    image = DOCKER / "Dockerfile"
    pins = {r.split("==")[1] for r in (*EXTRAS["gpu-cu12"], *EXTRAS["gpu-cu13"]) if "==" in r}
    arguments = defaults(image)
    assert pins == {arguments["RAPIDS"] + ".*"}
    assert f"gpu-cu{arguments['CUDA']}" in EXTRAS
    assert arguments["PYTHON"] == defaults(DOCKER / "Dockerfile.cpu")["PYTHON"]
    assert dict(instructions(image))["FROM"] == (
        "rapidsai/base:${RAPIDS}-cuda${CUDA}-py${PYTHON}"
    )
    assert "--constraint" in image.read_text()  # what the base image has stays as it is


@pytest.mark.skipif(not shutil.which("hadolint", path=TOOLS), reason="it is not installed")
@each_image
def test_hadolint_finds_nothing(image):
    subprocess.run(["hadolint", image], check=True, env={**os.environ, "PATH": TOOLS})


def test_the_services_of_the_compose_file_have_users_health_checks_and_files():
    compose = yaml.safe_load((DOCKER / "compose.yaml").read_text())
    copied = {s for word, value in instructions(DOCKER / "Dockerfile") if word == "COPY"
              for s in value.split()[:-1]}
    assert set(compose["services"]) == {"scheduler", "worker", "pipeline"}
    for service in compose["services"].values():
        assert re.fullmatch(r"\$\{GPUPIPE_USER:-(\d+):(\d+)\}", service["user"])
        assert service["healthcheck"]["test"][0] == "CMD"
        assert (DOCKER / service["build"]["context"]).resolve() == ROOT
        assert (ROOT / service["build"]["dockerfile"]).is_file()
        for word in [*service["entrypoint"], *service["healthcheck"]["test"]]:
            if word.startswith("/opt/gpupipe/"):
                assert Path(word).name in {Path(c).name for c in copied}
        for other in service.get("depends_on", {}):
            assert other in compose["services"]
    gpu = yaml.safe_load((DOCKER / "compose.gpu.yaml").read_text())
    assert set(gpu["services"]) == set(compose["services"])
    for service in gpu["services"].values():
        assert (ROOT / service["build"]["dockerfile"]).is_file()
        assert set(service["build"]["args"]) <= set(defaults(DOCKER / "Dockerfile"))
