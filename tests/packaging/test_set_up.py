"""The set-up's scripts: reading apt's sources, recognising interpreters, reporting what is missing."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


@pytest.fixture(autouse=True, scope="module")
def scripts_on_path() -> Iterator[None]:
    sys.path.insert(0, str(SCRIPTS))
    yield
    sys.path.remove(str(SCRIPTS))


def test_deb822_sources_are_read(tmp_path: Path) -> None:
    from apt_archives import Archive, archives

    folder = tmp_path / "sources.list.d"
    folder.mkdir()
    (folder / "debian.sources").write_text(
        "# a comment\n"
        "Types: deb\n"
        "URIs: http://one.example/debian http://two.example/debian/\n"
        "Suites: bookworm bookworm-updates\n"
        "# another\n"
        "Signed-By: /keys/one.gpg\n"
        "\n"
        "Types: deb\n"
        "URIs: http://one.example/debian-security\n"
        "Suites: bookworm-security\n"
        "\n\n"
        "Enabled: no\n"
        "Types: deb\n"
        "URIs: http://off.example/debian\n"
        "\n"
        "Types: deb\n"
        "URIs: http://other.example/tools\n"
        "Signed-By:\n"
        " -----BEGIN PGP PUBLIC KEY BLOCK-----\n"
        " .\n"
        " mQ\n"
    )
    (folder / "stale.sources.bak").write_text("Types: deb\nURIs: http://stale.example/debian\n")
    assert archives(tmp_path) == [
        Archive("http://one.example/debian", "/keys/one.gpg"),
        Archive("http://two.example/debian/", "/keys/one.gpg"),
        Archive("http://other.example/tools", "\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n mQ"),
    ]


def test_one_line_sources_are_read(tmp_path: Path) -> None:
    from apt_archives import Archive, archives

    (tmp_path / "sources.list").write_text(
        "# deb http://commented.example/debian sid main\n"
        "deb cdrom:[Debian 12]/ bookworm main\n"
        "deb [ arch=amd64 signed-by=/keys/a.gpg ] http://a.example/tools stable main\n"
        "deb http://b.example/debian bookworm main contrib\n"
        "deb-src http://b.example/debian bookworm main\n"
    )
    assert archives(tmp_path) == [
        Archive("http://b.example/debian", ""),
        Archive("http://a.example/tools", "/keys/a.gpg"),
    ]


def test_a_machine_without_apt_has_no_archive(tmp_path: Path) -> None:
    from apt_archives import archives

    assert archives(tmp_path / "nowhere") == []


def test_a_source_entry_carries_the_key() -> None:
    from apt_archives import Archive

    entry = Archive("http://a.example/debian", "/keys/a.gpg").source_entry("forky")
    assert entry == (
        "Types: deb-src\nURIs: http://a.example/debian\nSuites: forky\nComponents: main\nSigned-By: /keys/a.gpg\n"
    )


def test_this_interpreter_is_known() -> None:
    from interpreters import probe

    found = probe(sys.executable)
    assert found is not None
    assert found.version == sys.version_info[:3]
    assert found.unfit() == ""


def test_a_program_that_is_not_python_is_not_used(tmp_path: Path) -> None:
    from interpreters import probe

    broken = tmp_path / "python3.13t"
    broken.write_text("#!/bin/sh\nexit 127\n")
    broken.chmod(0o755)
    assert probe(broken) is None
    assert probe(tmp_path / "missing") is None


def provision(**environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, str(SCRIPTS / "provision.py")],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, **environment},
        check=False,
    )


def test_the_named_interpreter_is_taken() -> None:
    answer = provision(PYTHON=sys.executable)
    assert answer.returncode == 0
    assert os.path.samefile(answer.stdout.strip(), sys.executable)


def test_a_named_interpreter_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    old = tmp_path / "old-python"
    old.write_text(
        "#!/bin/sh\n"
        'echo \'{"executable": "/old", "implementation": "cpython", "version": [3, 12, 1], "build": "", '
        '"free_threaded": false, "suffix": "", "missing": []}\'\n'
    )
    old.chmod(0o755)
    answer = provision(PYTHON=str(old))
    assert answer.returncode == 1
    assert answer.stdout == ""
    assert "needs 3.13" in answer.stderr
    missing = provision(PYTHON=str(tmp_path / "missing"))
    assert missing.returncode == 1
    assert "no Python answers to that name" in missing.stderr


def test_missing_tools_are_named_with_their_packages(tmp_path: Path) -> None:
    """With only apt-get on PATH and an empty cache, the failure names what to install."""
    apt = tmp_path / "apt-get"
    apt.write_text("#!/bin/sh\nexit 1\n")
    apt.chmod(0o755)
    answer = provision(PYTHON="", PATH=str(tmp_path), HOME=str(tmp_path), XDG_CACHE_HOME=str(tmp_path), CC="")
    assert answer.returncode == 1
    assert {"make", "xz-utils", "gcc"} <= set(answer.stderr.partition("apt-get install")[2].split())


def test_a_machine_without_apt_gets_the_alternatives(tmp_path: Path) -> None:
    answer = provision(PYTHON="", PATH=str(tmp_path), HOME=str(tmp_path), XDG_CACHE_HOME=str(tmp_path), CC="")
    assert answer.returncode == 1
    assert "uv python install 3.13t" in answer.stderr
    assert "PYTHON=" in answer.stderr


def test_a_failed_step_shows_the_end_of_its_output() -> None:
    from steps import Failure, run

    with pytest.raises(Failure, match=r"status 3(.|\n)*\| the reason(.|\n)*look here") as caught:
        run("Trying", [sys.executable, "-c", "print('the reason'); raise SystemExit(3)"], hint="look here")
    log = str(caught.value).partition("The whole output is in ")[2].split()[0]
    assert Path(log).read_text() == "the reason\n"
    Path(log).unlink()


def test_a_step_that_hangs_is_given_up() -> None:
    from steps import Failure, run

    with pytest.raises(Failure, match="gave up after 0 s") as caught:
        run("Waiting", [sys.executable, "-c", "import sys, threading; threading.Event().wait()"], timeout=0.0)
    Path(str(caught.value).partition("The whole output is in ")[2].split()[0]).unlink()
