"""What a newcomer touches first: the README's lines, make, the pinned versions, the wheel in another environment."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import dl_course

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
REQUIREMENTS = PROJECT["dependencies"] + PROJECT["optional-dependencies"]["dev"]


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def make(*words: str) -> str:
    """What make would run, line by line, were nothing installed yet."""
    done = run_make("--dry-run", "--always-make", "VENV=.venv", "PYTHON=python3", *words)
    assert done.returncode == 0, done.stderr
    return done.stdout


def run_make(*words: str) -> subprocess.CompletedProcess[str]:
    """make as it is typed into a fresh shell: nothing of a make that runs these tests is handed down."""
    if shutil.which("make") is None:
        pytest.skip("there is no make")
    ours = {"MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "ARGS", "PIP_OPTIONS", "PYTHON", "VENV"}
    environment = {key: value for key, value in os.environ.items() if key not in ours}
    return subprocess.run(["make", *words], cwd=ROOT, env=environment, capture_output=True, text=True)


# --- what the README says is what happens


def test_the_readme_shows_the_very_lines_that_make_runs():
    block = next(b for b in re.findall(r"```sh\n(.*?)```", text("README.md"), re.DOTALL) if "-m venv" in b)
    shown = [line.split("  #")[0].strip() for line in block.splitlines() if line.strip()]
    run = [line.strip() for line in make("train").splitlines() if line.startswith(("python3 -m", ".venv/"))]
    assert shown == run
    assert len(run) == 3


def test_make_test_runs_the_tests_and_arguments_are_passed_on():
    assert ".venv/bin/python -m pytest" in make("test")
    assert ".venv/bin/dl-course train experiment=softmax_digits" in make("train", "ARGS=experiment=softmax_digits")


def test_make_refuses_a_python_that_is_too_old_or_missing(tmp_path: Path):
    old = tmp_path / "python3"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo Python 3.9.1 && exit 0\nexit 1\n')
    old.chmod(0o755)
    for python, says in ((str(old), "Python 3.9.1"), (str(tmp_path / "none"), "none")):
        done = run_make("setup", f"VENV={tmp_path / 'venv'}", f"PYTHON={python}")
        assert done.returncode != 0
        assert "Python 3.11 or newer is needed" in done.stdout
        assert says in done.stdout
        assert not (tmp_path / "venv").exists()


def test_what_the_readme_names_exists():
    """Each relative link leads somewhere, and each `experiment=` is one."""
    for document in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"):
        for target in re.findall(r"\]\(([^)#:]+)\)|src=\"([^\":]+)\"", text(document)):
            assert (ROOT / "".join(target)).exists(), f"{document} links to {''.join(target)}"
    own = {"mine"}  # stands for the reader's own file
    named = set(re.findall(r"experiment=(\w+)", text("README.md"))) - own
    assert named
    assert named <= {path.stem for path in (ROOT / "configs" / "experiment").glob("*.yaml")}


def test_the_readme_lists_the_topics_that_exist():
    files = ROOT.glob("configs/experiment/*.yaml")
    topics = {yaml.safe_load(path.read_text(encoding="utf-8"))["experiment"]["topic"] for path in files}
    assert {topic for topic in topics if f"(dl_course/{topic})" not in text("README.md")} == set()


def test_the_image_trains_by_default():
    lines = text("Dockerfile").splitlines()
    assert 'ENTRYPOINT ["dl-course"]' in lines
    assert 'CMD ["train"]' in lines
    assert 'ARG PIP_OPTIONS=""' in lines
    assert next(line for line in reversed(lines) if line.startswith("USER")) == "USER 1000"


def test_the_changelog_knows_the_version():
    assert f"## [{dl_course.__version__}]" in text("CHANGELOG.md")


# --- versions that are known to work together


def pins() -> dict[str, str]:
    lines = text("constraints.txt").splitlines()
    wrong = [line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.!]+", line)]
    assert wrong == [], "constraints are lines name==version; a version with +local is only found in one place"
    return {canonicalize_name(line.split("==")[0]): line.split("==")[1] for line in lines}


def test_every_dependency_is_pinned_within_its_range():
    pinned = pins()
    for requirement in map(Requirement, REQUIREMENTS):
        assert pinned[canonicalize_name(requirement.name)] in requirement.specifier, str(requirement)


def test_each_dependency_has_its_reason():
    """CONTRIBUTING says of every dependency what it is for."""
    document = text("CONTRIBUTING.md")
    assert [r for r in REQUIREMENTS if f"| {Requirement(r).name} |" not in document] == []


# --- the wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(folder), "."]
    subprocess.run(build, cwd=ROOT, check=True)
    (built,) = folder.glob("dl_course-*.whl")
    return built


@pytest.fixture(scope="module")
def elsewhere(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of another environment that has the wheel, and borrows from this one what the project needs."""
    home = tmp_path_factory.mktemp("elsewhere") / "venv"
    venv.create(home, with_pip=False)
    programs = home / ("Scripts" if os.name == "nt" else "bin")
    python = programs / Path(sys.executable).name
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "-q", "--no-deps", "--no-index"]
    subprocess.run([*install, str(wheel)], check=True)
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    # A path in a .pth comes after the environment's own folder, and .pth files in that path (the editable install) are
    # not read.
    here = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (Path(site) / "borrowed.pth").write_text("\n".join(sorted(here)) + "\n")
    return programs


@pytest.mark.slow
def test_the_wheel_holds_the_package_and_its_configs(wheel: Path):
    names = set(zipfile.ZipFile(wheel).namelist())
    configs = {f"dl_course/{path.relative_to(ROOT)}" for path in (ROOT / "configs").rglob("*.yaml")}
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "dl_course").rglob("*.py")}
    assert configs | modules <= names
    assert {name.split("/")[0] for name in names} == {"dl_course", f"dl_course-{dl_course.__version__}.dist-info"}


@pytest.mark.slow
def test_the_installed_command_works_in_an_empty_folder(elsewhere: Path, tmp_path: Path):
    def run(*words: str) -> str:
        environment = {k: v for k, v in os.environ.items() if k not in {"PYTHONPATH", "VIRTUAL_ENV", "DL_COURSE_DATA"}}
        command = [str(elsewhere / words[0]), *words[1:]]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    home = run("python", "-c", "import dl_course; print(dl_course.__file__)").strip()
    assert Path(home).is_relative_to(elsewhere.parent)
    listed = json.loads(run("dl-course", "list", "--json"))
    assert {e["name"] for e in listed} == {path.stem for path in (ROOT / "configs" / "experiment").glob("*.yaml")}
    assert run("dl-course", "--version").split()[-1] == dl_course.__version__

    run("dl-course", "train", "trainer.max_epochs=1")
    (folder,) = (tmp_path / "runs" / "mlp_digits").iterdir()
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["epochs"] == 1
    assert repr(metrics["test/accuracy"]) in run("python", "-m", "dl_course", "eval", str(folder))
