"""What stands where a run writes its results, and whose these are."""

import shutil

import pytest
from support.changed_runs import (
    SEALED,
    content,
    invoke,
    refused,
    resume,
)


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("checkpoints/sigma=0.1-optimised", "the folder of a stage's checkpoints"),
        ("models", "the folder of the run's models"),
        ("figures", "the folder of the run's figures"),
    ],
)
def test_a_file_where_a_folder_is_to_be_is_noticed_at_once(run, name, what):
    if (run / name).is_dir():
        shutil.rmtree(run / name)
    (run / name).write_text("")
    assert refused(run) == f"{run / name}: expected {what}, got a file"


@pytest.mark.parametrize("name", ["results.json", "SHA256SUMS", "examples.npz", "table.md", "report.html"])
def test_a_folder_where_a_file_is_to_be_is_noticed_at_once(run, name):
    (run / name).mkdir()
    assert refused(run) == f"{run / name}: expected a file that the run writes, got a folder"


RESULTS_OF_A_RUN = ("results.json", "SHA256SUMS", "examples.npz")


@pytest.mark.parametrize(
    ("names", "name", "message"),
    [
        (RESULTS_OF_A_RUN, "results.json", "seed: expected 4, as in config.json, got 3"),
        (RESULTS_OF_A_RUN[:1], "results.json", "seed: expected 4, as in config.json, got 3"),
    ],
)
def test_results_of_another_run_do_not_end_an_unfinished_one(tmp_path, other, whole, names, name, message):
    run = shutil.copytree(other, tmp_path / "run")
    (run / "checkpoints" / "sigma=0.1-naive" / ".latest.pt.0a1b2c3d4e5f.tmp").write_text("left by a kill")
    for planted in names:
        shutil.copy(whole / planted, run / planted)
    assert refused(run) == f"{run / name}: {message}"
    assert refused(run, ["report", run]) == f"{run / name}: {message}"


@pytest.mark.parametrize(
    ("names", "name", "message"),
    [
        (
            RESULTS_OF_A_RUN,
            "environment.json",
            "was changed since the run wrote it (its SHA-256 is not that of SHA256SUMS)",
        ),
        (RESULTS_OF_A_RUN[::2], "SHA256SUMS", "is missing, so that the results cannot be checked"),
    ],
)
def test_results_of_an_equal_run_do_not_end_an_unfinished_one(run, whole, names, name, message):
    for planted in names:
        shutil.copy(whole / planted, run / planted)
    assert refused(run) == f"{run / name}: {message}"


@pytest.mark.parametrize("names", [("examples.npz", "SHA256SUMS"), ("table.md", "models/sigma=0.1-learn.pt")])
def test_files_of_another_run_that_are_yet_to_be_written_are_replaced(tmp_path, other, run, whole, names):
    for planted in names:
        shutil.copytree(other / "models", run / "models", dirs_exist_ok=True)
        (run / planted).write_bytes(b"of another run")
    assert resume(run).exit_code == 0
    now, then = content(run), content(whole)
    assert {name for name in then if now[name] != then[name]} <= {
        *("environment.json", "results.json", "SHA256SUMS", "report.html", "table.csv"),
        *(name for name in then if name.startswith("checkpoints/")),
    }
    assert invoke(["report", run]).exit_code == 0


@pytest.mark.parametrize(
    "name", ["config.json", "split.json", "metrics.jsonl", "results.json", "examples.npz", "models/sigma=0.1-learn.pt"]
)
def test_a_report_is_of_what_the_run_wrote(tmp_path, whole, name):
    run = shutil.copytree(whole, tmp_path / "run")
    assert invoke(["report", run]).exit_code == 0
    data = (run / name).read_bytes()
    digit = next(i for i in range(len(data) // 2, len(data)) if data[i : i + 1].isdigit())
    (run / name).write_bytes(data[:digit] + str((data[digit] - 48 + 1) % 10).encode() + data[digit + 1 :])
    line = refused(run, ["report", run])
    assert line.startswith(f"{run / name}: ")
    assert refused(run, ["run", "noise", "--resume", "--out", run]) == line


def test_a_report_needs_the_sums(tmp_path, whole):
    run = shutil.copytree(whole, tmp_path / "run")
    sums = run / "SHA256SUMS"
    text = sums.read_text()
    sums.write_text(text.replace("  ", " ", 1))
    assert refused(run, ["report", run]).startswith(f"{sums}: line 1: expected a SHA-256 and the name of a file, got '")
    sums.write_text("".join(line for line in text.splitlines(keepends=True) if "results" not in line))
    assert refused(run, ["report", run]) == f"{sums}: is damaged: it does not tell of results.json"
    sums.unlink()
    assert refused(run, ["report", run]) == f"{sums}: is missing, so that the results cannot be checked"


def test_what_a_user_adds_to_a_run_is_the_users(tmp_path, whole):
    run = shutil.copytree(whole, tmp_path / "run")
    (run / "notes.txt").write_text("look at this again")
    (run / "models" / "sigma=0.1-naive.pt").unlink()  # to save space
    assert invoke(["report", run]).exit_code == 0
    assert "notes.txt" not in (run / "SHA256SUMS").read_text()


def test_the_sums_are_those_of_the_files(whole):
    told = dict(line.split("  ")[::-1] for line in (whole / "SHA256SUMS").read_text().splitlines())
    models = {f"models/sigma=0.1-{stage}.pt" for stage in ("learn", "naive", "optimised")}
    assert told.keys() == {"metrics.jsonl", "results.json", "examples.npz", *SEALED, *models}
