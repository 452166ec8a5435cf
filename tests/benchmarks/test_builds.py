"""Finding and making the two builds."""

import json
import os
import shutil
import subprocess
import sys
import zipfile

import pytest

from benchmarks import compare
from benchmarks.compare import builds
from benchmarks.compare.builds import BuildError, prepare, python_path


def package(directory, text=""):
    """A package that imports as tokioloop does."""
    made = directory / "tokioloop"
    made.mkdir(parents=True)
    (made / "__init__.py").write_text(f"from ._tokioloop import which\n{text}\n")
    (made / "_tokioloop.py").write_text(f"which = {directory.name!r}\n")
    return directory


def which(build):
    code = "import tokioloop, benchmarks; print(tokioloop.which)"
    environment = {**os.environ, "PYTHONPATH": python_path(build)}
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        env=environment,
        cwd=builds.ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def test_each_side_imports_its_own_and_not_the_trees(tmp_path):
    old, new = (prepare(str(package(tmp_path / name)), name, tmp_path / "sides") for name in ("old", "new"))
    assert (which(old), which(new)) == ("old", "new")
    assert old.path != new.path and len(str(old.path)) == len(str(new.path))


def test_a_wheel_is_unpacked(tmp_path):
    source = package(tmp_path / "wheel")
    with zipfile.ZipFile(tmp_path / "some.whl", "w") as wheel:
        for file in (source / "tokioloop").iterdir():
            wheel.write(file, f"tokioloop/{file.name}")
    build = prepare(str(tmp_path / "some.whl"), "old", tmp_path / "sides")
    assert (which(build), build.title) == ("wheel", "some.whl")


def test_what_does_not_import_is_refused(tmp_path):
    with pytest.raises(BuildError, match="does not import: ValueError: no"):
        prepare(str(package(tmp_path / "broken", "raise ValueError('no')")), "old", tmp_path / "sides")
    with pytest.raises(BuildError, match="no package"):
        prepare(str(tmp_path), "new", tmp_path / "sides")


def test_an_extension_of_something_else_is_refused(tmp_path):
    (tmp_path / "some.so").write_bytes(b"no library at all")
    with pytest.raises(BuildError, match="does not import: ImportError"):
        prepare(str(tmp_path / "some.so"), "old", tmp_path / "sides")


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A git repository with one commit in place of the tree."""
    root = package(tmp_path / "root")

    def git(*arguments):
        identity = ["-c", "user.name=a", "-c", "user.email=a@localhost", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", *identity, *arguments], cwd=root, check=True, capture_output=True)

    git("init")
    git("add", ".")
    git("commit", "-m", "first")
    monkeypatch.setattr(builds, "ROOT", root)
    monkeypatch.setattr(builds, "CACHE", tmp_path / "cache")
    return root


def test_a_revision_that_was_built_is_kept(repository, tmp_path):
    commit = builds._commit("HEAD")
    kept = builds.CACHE / builds.key(commit)
    package(kept)
    (kept / "tokioloop" / builds.EXTENSION).write_bytes(b"")
    (kept / "tokioloop" / "_tokioloop.py").rename(kept / "tokioloop" / "_other.py")
    # The kept extension is empty: it is found, and can't be loaded.
    with pytest.raises(BuildError, match="does not import: ImportError"):
        prepare("HEAD", "old", tmp_path / "sides")


def test_the_python_files_are_those_of_the_revision(repository, tmp_path):
    (repository / "tokioloop" / "__init__.py").write_text("changed = True\n")
    builds._extract("HEAD", tmp_path / "there", "tokioloop")
    assert "which" in (tmp_path / "there/tokioloop/__init__.py").read_text()


def test_a_build_of_other_flags_is_another(repository, monkeypatch):
    plain = builds.key("0" * 40)
    monkeypatch.setenv("CARGO_PROFILE_RELEASE_LTO", "off")
    assert builds.key("0" * 40) != plain


def test_a_revision_that_is_not_there_is_refused(repository, tmp_path):
    with pytest.raises(BuildError, match="'no-such-thing' is neither"):
        prepare("no-such-thing", "old", tmp_path / "sides")


def test_the_tree_is_refused_in_debug_mode(tmp_path, monkeypatch):
    root = package(tmp_path / "root")
    (tmp_path / builds.RECORD).write_text(json.dumps({"extension": "dev 0123"}))
    monkeypatch.setattr(builds, "ROOT", root)
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    with pytest.raises(BuildError, match="debug mode"):
        prepare(str(root), "old", tmp_path / "sides")


def test_the_library_is_found_in_cargos_output():
    told = "\n".join(
        json.dumps({"target": {"name": name}, "filenames": [f"/t/{name}.rlib", f"/t/lib{name}.so"]})
        for name in ("pyo3", "_tokioloop")
    )
    assert str(builds._library(f"{told}\nnot json\n")) == "/t/lib_tokioloop.so"
    with pytest.raises(BuildError, match="no library"):
        builds._library("")


def test_this_very_extension_needs_as_much_memory_as_itself(tmp_path):
    """From end to end: two copies, workers that import each its own, and the table."""
    here = tmp_path / "here"
    shutil.copytree(builds.ROOT / "tokioloop", here / "tokioloop")
    document, verdicts = compare.compare(str(here), str(here), compare.Plan(["pending_task_bytes"], pairs=1))
    assert [verdict.figure for verdict in verdicts] == ["bytes", "blocks"]
    assert verdicts[1].state == "pass"
    assert document["old"] == document["new"] == str(here)
