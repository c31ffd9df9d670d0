"""A folder that the file system cannot lock: a file says who writes it."""

import errno
import fcntl
import json
import os
import socket
import subprocess
import sys
import textwrap

import pytest
from support.tiny_noise import MANIFEST

from metasynth.errors import RunError, UsageError
from metasynth.running.integrity import claim_file
from metasynth.running.integrity.claim_file import CLAIM_NAME
from metasynth.running.lock import LOCK_NAME, claim, holdings
from metasynth.running.records import RunFolder


@pytest.fixture(params=[errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def no_locks(request, monkeypatch):
    def refuse(descriptor, operation):
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(fcntl, "flock", refuse)
    return os.strerror(request.param)


def held_by(folder, **changed):
    """Have the folder be that of another process."""
    folder.mkdir(exist_ok=True)
    mine = {"host": socket.gethostname(), "process": os.getpid(), "started": claim_file._start_of(os.getpid())}
    (folder / CLAIM_NAME).write_text(json.dumps({**mine, **changed}))


def ended():
    """The number of a process that has ended."""
    return subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)


def test_it_says_so_and_one_writes_at_a_time(tmp_path, no_locks, caplog):
    out = tmp_path / "run"
    with RunFolder.create(out, MANIFEST):
        (record,) = caplog.records
        assert record.getMessage() == (
            f"{out / LOCK_NAME}: the file system cannot lock it ({no_locks}); {CLAIM_NAME} beside it is used instead"
        )
        assert json.loads((out / CLAIM_NAME).read_text())["host"] == socket.gethostname()
        assert CLAIM_NAME not in holdings(out)
        with pytest.raises(RunError) as caught:
            RunFolder.resume(out, MANIFEST)
        assert str(caught.value) == f"{out}: process {os.getpid()} is writing this run (it made {out / CLAIM_NAME})"
    assert not (out / CLAIM_NAME).exists()
    RunFolder.resume(out, MANIFEST).close()
    assert not (out / CLAIM_NAME).exists()


@pytest.mark.usefixtures("no_locks")
def test_a_refused_run_is_left_as_it_was(tmp_path):
    RunFolder.create(tmp_path, MANIFEST).close()
    held_by(tmp_path, host="elsewhere", process=7)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.name != LOCK_NAME}
    with pytest.raises(RunError) as caught:
        RunFolder.resume(tmp_path, MANIFEST)
    assert str(caught.value) == (
        f"{tmp_path}: process 7 on elsewhere is writing this run; if it has ended, remove {tmp_path / CLAIM_NAME}"
    )
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.name != LOCK_NAME} == before


@pytest.mark.usefixtures("no_locks")
@pytest.mark.parametrize("text", ["", "[]", "{", '{"process": "x"}'])
def test_a_file_that_says_nothing_is_somebodys(tmp_path, text):
    (tmp_path / CLAIM_NAME).write_text(text)
    with pytest.raises(RunError, match=rf"is writing this run; if it has ended, remove {tmp_path / CLAIM_NAME}$"):
        claim(tmp_path)
    assert (tmp_path / CLAIM_NAME).read_text() == text


@pytest.mark.usefixtures("no_locks")
@pytest.mark.parametrize("stale", ["ended", "another process has its number"])
def test_that_of_a_process_that_has_ended_is_taken_over(tmp_path, stale):
    changed = {"process": int(ended().stdout)} if stale == "ended" else {"started": "1"}
    held_by(tmp_path, **changed)
    lock = claim(tmp_path)
    assert json.loads((tmp_path / CLAIM_NAME).read_text())["process"] == os.getpid()
    assert sorted(path.name for path in tmp_path.iterdir()) == [LOCK_NAME, CLAIM_NAME]
    lock.release()
    lock.release()
    assert [path.name for path in tmp_path.iterdir()] == [LOCK_NAME]


@pytest.mark.usefixtures("no_locks")
def test_two_cannot_take_over_at_once(tmp_path):
    held_by(tmp_path, started="1")
    guard = tmp_path / f"{CLAIM_NAME}.takeover"
    guard.write_text("{}")
    with pytest.raises(RunError) as caught:
        claim(tmp_path)
    assert str(caught.value) == f"{tmp_path}: another process is taking over this run; if none is, remove {guard}"
    guard.unlink()
    claim(tmp_path).release()


@pytest.mark.usefixtures("no_locks")
def test_a_process_that_took_over_meanwhile_is_left_alone(tmp_path, monkeypatch):
    held_by(tmp_path, started="1")
    make = claim_file._make

    def and_lose(path, content):
        make(path, content)
        if path.name != CLAIM_NAME:  # while this one made its guard, another has taken over and released its own
            held_by(tmp_path)

    monkeypatch.setattr(claim_file, "_make", and_lose)
    with pytest.raises(RunError, match=f"process {os.getpid()} is writing this run"):
        claim(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [LOCK_NAME, CLAIM_NAME]


@pytest.mark.usefixtures("no_locks")
def test_a_claim_that_was_replaced_is_not_removed(tmp_path):
    lock = claim(tmp_path)
    held_by(tmp_path, host="elsewhere")
    lock.release()
    assert json.loads((tmp_path / CLAIM_NAME).read_text())["host"] == "elsewhere"


@pytest.mark.usefixtures("no_locks")
def test_a_folder_in_which_no_file_can_be_made(tmp_path, monkeypatch):
    def refuse(path, content):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(claim_file, "_make", refuse)
    with pytest.raises(UsageError, match=r"cannot be written: Permission denied; give another --out$"):
        claim(tmp_path)


@pytest.mark.parametrize("end", ["kill", "exit", "fork"])
def test_it_is_released_when_its_process_ends(tmp_path, end, monkeypatch):
    code = f"""
        import fcntl, logging, os, sys
        from pathlib import Path
        from metasynth.running.lock import claim

        logging.basicConfig(format="%(message)s")

        def refuse(descriptor, operation):
            raise OSError(37, "No locks available")

        fcntl.flock = refuse
        lock = claim(Path({str(tmp_path)!r}))
        if {end!r} == "kill":
            os.kill(os.getpid(), 9)
        if {end!r} == "fork":
            if not os.fork():
                sys.exit()
            os.wait()
            print(Path({str(tmp_path / CLAIM_NAME)!r}).exists())
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True)
    assert done.returncode == (-9 if end == "kill" else 0), done.stderr
    assert done.stderr == (
        f"{tmp_path / LOCK_NAME}: the file system cannot lock it (No locks available); "
        f"{CLAIM_NAME} beside it is used instead\n"
    )
    assert done.stdout == ("True\n" if end == "fork" else "")
    assert (tmp_path / CLAIM_NAME).exists() == (end == "kill")
    monkeypatch.setattr(fcntl, "flock", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOLCK, "No locks")))
    claim(tmp_path).release()
