import platform
import shutil
import subprocess

import pytest
import torch

import metasynth
from metasynth.running.environment import describe_environment, git_commit


def test_versions_device_and_threads():
    found = describe_environment("cpu", 3)
    assert found["metasynth"] == metasynth.__version__
    assert found["torch"] == torch.__version__
    assert found["python"] == platform.python_version()
    assert (found["device"], found["threads"]) == ("cpu", 3)


@pytest.fixture
def repository(tmp_path):
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    names = ["-c", "user.name=a", "-c", "user.email=a@b"]
    (tmp_path / "__init__.py").write_text("")
    for arguments in (["init", "-q"], ["add", "."], [*names, "commit", "-q", "-m", "x"]):
        subprocess.run(["git", "-C", str(tmp_path), *arguments], check=True)
    return tmp_path


def test_commit_of_a_checkout(repository):
    commit = git_commit(repository)
    assert len(commit) == 40
    (repository / "__init__.py").write_text("1")
    assert git_commit(repository) == commit + "+changes"


def test_no_commit_where_the_package_is_not_tracked(repository, tmp_path):
    installed = repository / "site-packages"
    installed.mkdir()
    (installed / "__init__.py").write_text("")
    assert git_commit(installed) is None


def test_no_commit_without_git(repository, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert git_commit(repository) is None
