"""What ties the files of a run together: none can be changed without a line that says so."""

import itertools
import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from support.tiny_noise import arguments, make_cache, results

from metasynth.cli.main import main
from metasynth.running.checkpoint import load_checkpoint, save_checkpoint
from metasynth.running.integrity.json_files import with_digest, without_digest
from metasynth.training.trainers import Supervised

SEALED = {"config.json", "environment.json", "split.json"}
LEARN, NAIVE = "checkpoints/sigma=0.1-learn/final.pt", "checkpoints/sigma=0.1-naive/latest.pt"


def invoke(command):
    return CliRunner().invoke(main, list(map(str, command)), catch_exceptions=False)


def resume(run):
    return invoke(["run", "noise", "--resume", "--out", run, "--quiet"])


def content(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


def stopped(run, cache, seed=3):
    """A run that has learned, and was interrupted while it trained the naive segmenter."""
    step = Supervised.step

    def interrupted(self, index, batch):
        if index == 8:
            raise KeyboardInterrupt
        return step(self, index, batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Supervised, "step", interrupted)
        assert invoke(arguments(run, cache, seed=seed)).exit_code == 130
    assert {LEARN, NAIVE} <= content(run).keys()
    return run


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return make_cache(tmp_path_factory.mktemp("cache") / "c.h5")


@pytest.fixture(scope="module")
def whole(tmp_path_factory, cache):
    run = tmp_path_factory.mktemp("whole") / "run"
    assert invoke(arguments(run, cache, seed=3)).exit_code == 0
    return run


@pytest.fixture(scope="module")
def begun(tmp_path_factory, cache):
    return stopped(tmp_path_factory.mktemp("begun") / "run", cache)


@pytest.fixture(scope="module")
def other(tmp_path_factory, cache):
    return stopped(tmp_path_factory.mktemp("other") / "run", cache, seed=4)


@pytest.fixture
def run(tmp_path, begun):
    return shutil.copytree(begun, tmp_path / "run")


def refused(run, command=None) -> str:
    """The one line that the run is refused with; no file is touched."""
    before = content(run)
    done = invoke(command) if command else resume(run)
    assert done.exit_code in (1, 2), done.output
    told = ("Run folder: ", f"{run}: the run has finished")
    (line,) = [line for line in done.stderr.splitlines() if not line.startswith(told)]
    assert line.startswith("Error: ")
    assert content(run) == before
    return line.removeprefix("Error: ")


def edit(name, *keys, to):
    """Change one value of a JSON file, as an editor would."""

    def change(run):
        value = json.loads((run / name).read_text())
        inner = value
        for key in keys[:-1]:
            inner = inner[key]
        assert inner[keys[-1]] != to
        inner[keys[-1]] = to
        (run / name).write_text(json.dumps(value, indent=2))

    return change


def write(name, text):
    return lambda run: (run / name).write_text(text)


EDITED = "was changed since the run wrote it (it does not have the digest of its content)"


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("config.json", edit("config.json", "config", "outer", "lr", to=0.2)),
        ("config.json", edit("config.json", "seed", to=-3)),
        ("config.json", edit("config.json", "config", "segmenter", "steps", to=21)),
        ("config.json", edit("config.json", "config", "segmenter", "steps", to=7)),
        ("config.json", edit("config.json", "config", "start", to=0.3)),
        ("config.json", edit("config.json", "data", "digest", to="0" * 64)),
        ("environment.json", edit("environment.json", "threads", to=2)),
        ("environment.json", edit("environment.json", "started", to=0)),
        ("split.json", edit("split.json", "seed", to=4)),
        ("split.json", edit("split.json", "test", to=["s0"])),
    ],
)
def test_an_edited_file_is_refused(run, name, change):
    change(run)
    assert refused(run) == f"{run / name}: {EDITED}"


@pytest.mark.parametrize("name", sorted(SEALED))
def test_a_file_without_its_digest_is_refused(run, name):
    value = json.loads((run / name).read_text())
    (run / name).write_text(json.dumps(without_digest(value)))
    assert refused(run) == f"{run / name}: {EDITED}"


@pytest.mark.parametrize("name", sorted(SEALED))
@pytest.mark.parametrize("repeated", ['"digest": "x"', '"threads": 1', '"\\u0073eed": 4'])
def test_a_key_that_is_given_twice_is_refused(run, name, repeated):
    text = (run / name).read_text()
    key = json.loads(f"{{{repeated}}}").popitem()[0]
    once = "" if key in json.loads(text) else f'"{key}": 0, '
    (run / name).write_text(f"{{{repeated}, {once}{text.lstrip()[1:]}")  # the last counts for the standard library
    assert refused(run) == f"{run / name}: is not valid JSON: the key '{key}' is given twice"


@pytest.mark.parametrize("name", sorted(SEALED))
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not valid JSON"),
        ('{"a": ', "is not valid JSON"),
        ("\x00" * 90, "is not valid JSON"),
        ("[" * 100_000, "is not valid JSON"),
        ("[]", "expected a JSON object, got list"),
        ("{}", EDITED),
        ('{"a": NaN, "digest": "x"}', EDITED),
    ],
)
def test_a_damaged_file_is_refused(run, name, text, message):
    (run / name).write_text(text)
    line = refused(run)
    assert line.startswith(f"{run / name}: ")
    assert message in line or (name == "config.json" and "expected a run of format 'metasynth-run/2'" in line)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"started": "now"}, "started: expected a float, got 'now'"),
        ({"device": 3}, "device: expected a str, got 3"),
        ({"resumed": {}}, "resumed: expected a list of sessions, got {}"),
        ({"resumed": [3]}, "resumed.0: expected an object, got 3"),
        ({"resumed": [{"started": 1.0, "earlier_wall_s": "x"}]}, "resumed.0.earlier_wall_s: expected a float, got 'x'"),
    ],
)
def test_an_environment_of_another_kind_is_refused(run, changed, message):
    value = json.loads((run / "environment.json").read_text())
    (run / "environment.json").write_text(json.dumps(with_digest({**value, **changed})))
    assert refused(run) == f"{run / 'environment.json'}: {message}"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"experiment": 3}, "experiment: expected text, got 3"),
        ({"seed": True}, "seed: expected a whole number from 0 on, got True"),
        ({"config": []}, "config: expected an object, got an empty list"),
        ({"data": None}, "data: expected an object, got null"),
        ({"colour": "blue"}, "unknown entry 'colour'"),
    ],
)
def test_a_manifest_of_another_kind_is_refused(run, changed, message):
    value = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(with_digest({**value, **changed})))
    assert refused(run) == f"{run / 'config.json'}: {message}"


def test_settings_of_another_version_are_named_with_their_file(run):
    value = json.loads((run / "config.json").read_text())
    del value["config"]["start"]
    (run / "config.json").write_text(json.dumps(with_digest(value)))
    assert refused(run) == f"{run / 'config.json'}: missing setting start"


def test_a_split_that_was_replaced_is_refused(run, other):
    shutil.copy(other / "split.json", run / "split.json")
    assert refused(run) == f"{run / 'split.json'}: is missing or not the one with which {run / LEARN} was written"
    (run / "split.json").unlink()
    assert refused(run) == f"{run / 'split.json'}: is missing or not the one with which {run / LEARN} was written"


def change_a_digit(run):
    metrics = bytearray((run / "metrics.jsonl").read_bytes())
    at = metrics.index(b'"sigma":0.') + len(b'"sigma":0.')
    metrics[at] = ord("5") if metrics[at] != ord("5") else ord("6")
    (run / "metrics.jsonl").write_bytes(metrics)


def cut(lines):
    def change(run):
        whole = (run / "metrics.jsonl").read_bytes().splitlines(keepends=True)
        (run / "metrics.jsonl").write_bytes(b"".join(whole[:-lines]))

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (change_a_digit, r"was changed: its first {learn} bytes are not those that {run}/{LEARN} knows"),
        (cut(9), r"holds {size} bytes, fewer than the {learn} that {run}/{LEARN} knows"),
        (cut(4), r"holds {size} bytes, fewer than the {naive} that {run}/{NAIVE} knows"),
        (write("metrics.jsonl", ""), r"holds 0 bytes, fewer than the {learn} that {run}/{LEARN} knows"),
        (
            lambda run: (run / "metrics.jsonl").unlink(),
            "holds 0 bytes, fewer than the {learn} that {run}/{LEARN} knows",
        ),
    ],
)
def test_changed_records_are_refused(run, change, message):
    positions = {name: load_checkpoint(run / path)["position"] for name, path in (("learn", LEARN), ("naive", NAIVE))}
    change(run)
    size = len(content(run).get("metrics.jsonl", b""))
    expected = message.format(run=run, size=size, LEARN=LEARN, NAIVE=NAIVE, **positions)
    assert refused(run) == f"{run / 'metrics.jsonl'}: {expected}"


def test_what_follows_the_last_checkpoint_is_dropped_and_not_learned_from(run, whole):
    with (run / "metrics.jsonl").open("ab") as file:
        file.write(b'{"stage":"sigma=0.1/learn","step":99,"outer_step":99,"sigma":9.0}\n')
    assert resume(run).exit_code == 0
    assert results(run) == results(whole)
    assert (run / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()


def test_records_that_another_program_changes_meanwhile_are_not_learned_from(tmp_path, cache):
    def change(self, index, batch):
        change_a_digit(tmp_path / "run")
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("metasynth.training.stages.keep_segmenter", lambda *_: change_a_digit(tmp_path / "run"))
        done = invoke(arguments(tmp_path / "run", cache))
    assert done.exit_code == 1
    assert done.stderr.splitlines()[-1] == (
        f"Error: {tmp_path / 'run' / 'metrics.jsonl'}: was changed by another program while the run was writing it"
    )


def test_a_checkpoint_of_another_run_is_refused(run, other):
    shutil.copy(other / LEARN, run / LEARN)
    assert refused(run) == (
        f"{run / LEARN}: belongs to another run, or {run / 'config.json'} was changed since it was written"
    )


def test_a_checkpoint_of_another_stage_is_refused(run):
    shutil.copy(run / LEARN, (run / NAIVE).with_name("final.pt"))
    assert refused(run) == (
        f"{(run / NAIVE).with_name('final.pt')}: expected a checkpoint of stage sigma=0.1-naive, "
        "got one of stage sigma=0.1/learn"
    )


def test_a_checkpoint_in_the_midst_is_no_final_one(run):
    (run / NAIVE).rename((run / NAIVE).with_name("final.pt"))
    assert refused(run) == (
        f"{(run / NAIVE).with_name('final.pt')}: expected all 14 steps of stage sigma=0.1/naive, got 6"
    )


def test_a_stage_whose_checkpoint_is_gone_is_not_trained_over_the_next(run):
    (run / LEARN).unlink()
    line = refused(run)
    assert (
        line == f"{run}/checkpoints: holds no checkpoint of stage sigma=0.1/learn, whose records are in metrics.jsonl"
    )


def test_checkpoints_that_are_no_files_are_refused(run):
    (run / NAIVE).unlink()
    os.mkfifo(run / NAIVE)
    assert refused(run) == f"{run}/{NAIVE}: expected a checkpoint, got no regular file"
    shutil.rmtree(run / "checkpoints")
    (run / "checkpoints").write_text("")
    assert refused(run) == f"{run}/checkpoints: expected the folder of the run's checkpoints, got a file"


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


def resaved(**changed):
    """Write the naive segmenter's checkpoint again, sealed, without the entries that are None now."""

    def change(run):
        state = {**load_checkpoint(run / NAIVE)}
        for key, value in changed.items():
            state[key] = value(state[key])
        save_checkpoint(run / NAIVE, {key: value for key, value in state.items() if value is not None})

    return change


def without(key):
    return lambda mapping: {name: value for name, value in mapping.items() if name != key}


def other_widths(trainer):
    return {**trainer, "model": {name: value[:1] for name, value in trainer["model"].items()}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (resaved(trainer=lambda _: None), "the checkpoint is damaged (trainer: expected Mapping, got None)"),
        (resaved(random=lambda _: None), "the checkpoint is damaged (random: expected Mapping, got None)"),
        (resaved(step=lambda _: "six"), "the checkpoint is damaged (step: expected int, got 'six')"),
        (resaved(step=lambda _: 6.5), "the checkpoint is damaged (step: expected int, got 6.5)"),
        (resaved(position=lambda _: -1), "the checkpoint is damaged (position: expected int, got -1)"),
        (resaved(seconds=lambda _: float("nan")), "the checkpoint is damaged (seconds: expected float, got nan)"),
        (resaved(stage=lambda _: 3), "the checkpoint is damaged (stage: expected str, got 3)"),
        (resaved(step=lambda _: 0), "expected 1 to 13 steps of stage sigma=0.1/naive, got 0"),
        (resaved(random=without("python")), "the checkpoint is damaged (random: python)"),
        (resaved(random=without("cuda")), "the checkpoint is damaged (random: cuda)"),
        (
            resaved(random=lambda random: {**random, "torch": random["torch"][:100]}),
            "the checkpoint is damaged (random: ",
        ),
        (
            resaved(random=lambda random: {**random, "numpy": {**random["numpy"], "key": [1, 2]}}),
            "the checkpoint is damaged (random: ",
        ),
        (
            resaved(random=lambda random: {**random, "python": [3, [1, 2], None]}),
            "the checkpoint is damaged (random: state vector is the wrong size)",
        ),
        (resaved(bound=lambda _: None), "the checkpoint does not say which run it belongs to"),
        (resaved(trainer=without("model")), "the checkpoint does not fit stage sigma=0.1/naive (model)"),
        (
            resaved(trainer=other_widths),
            "the checkpoint does not fit stage sigma=0.1/naive (Error(s) in loading state_",
        ),
    ],
)
def test_a_checkpoint_of_another_kind_is_refused(run, change, message):
    change(run)
    before = content(run)
    line = refused(run)
    assert line.startswith(f"{run / NAIVE}: {message}")
    assert content(run) == before


def test_an_unsealed_checkpoint_is_refused(run):
    torch.save(load_checkpoint(run / NAIVE), run / NAIVE)
    assert refused(run) == (
        f"{run / NAIVE}: the checkpoint is damaged (it does not carry its SHA-256, so another program wrote it)"
    )


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


# Processes that are killed around a rename, when every file of a run comes into being.


class Killed(BaseException):
    """Stands for SIGKILL: nothing is cleaned up after it."""


def killed_at(run, cache, rename, when):
    """Begin the run, or go on, until just before or after so many renames; whether there were as many."""
    replace, unlink, count = os.replace, Path.unlink, itertools.count()

    def replaced(source, target):
        killed = next(count) == rename
        if killed and when == "before":
            raise Killed
        replace(source, target)
        if killed:
            raise Killed

    def unlinked(path, missing_ok=False):
        if not path.name.endswith(".tmp"):
            unlink(path, missing_ok)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "replace", replaced)
        patch.setattr(Path, "unlink", unlinked)
        try:
            done = invoke([*arguments(run, cache, seed=3), *(["--resume"] if run.exists() else [])])
        except Killed:
            return True
    assert done.exit_code == 0, done.output
    return False


def is_whole(run, whole):
    assert resume(run).exit_code == 0
    assert results(run) == results(whole)
    assert (run / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
    assert content(run).keys() == content(whole).keys()  # nothing is left over
    shutil.rmtree(run)


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_run_that_is_killed_again_and_again_around_a_rename(tmp_path, cache, whole, when):
    for rename in (1, 2, 3, 6, 4, 9):  # counted from the start of each session
        assert killed_at(tmp_path / "run", cache, rename, when)
    is_whole(tmp_path / "run", whole)


@pytest.mark.slow
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_run_that_is_killed_around_any_rename(tmp_path, cache, whole, when):
    renames = 0
    while killed_at(tmp_path / "run", cache, renames, when):
        if when == "after" or renames > 0:  # before the first, nothing says which run it is
            is_whole(tmp_path / "run", whole)
        else:
            shutil.rmtree(tmp_path / "run")
        renames += 1
    assert renames > 25


# Runs that were begun before files carried digests.


def unsealed(run):
    """The run as an earlier version would have left it."""
    for name in SEALED & content(run).keys():
        value = without_digest(json.loads((run / name).read_text()))
        if name == "config.json":
            value["format"] = "metasynth-run/1"
        (run / name).write_text(json.dumps(value, indent=2) + "\n")
    for path in run.glob("checkpoints/*/*.pt"):
        state = load_checkpoint(path)
        torch.save({key: value for key, value in state.items() if key not in ("bound", "steps")}, path)
    for path in run.glob("models/*.pt"):
        torch.save(torch.load(path, weights_only=True), path)
    if (run / "examples.npz").is_file():
        data = (run / "examples.npz").read_bytes()
        end = data.rindex(b"PK\x05\x06") + 20
        (run / "examples.npz").write_bytes(data[:end] + b"\0\0")
    (run / "SHA256SUMS").unlink(missing_ok=True)
    return run


def test_an_old_run_goes_on_to_the_same_results(run, whole):
    unsealed(run)
    assert resume(run).exit_code == 0
    assert results(run) == results(whole)
    assert (run / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
    assert json.loads((run / "config.json").read_text())["format"] == "metasynth-run/1"
    assert invoke(["report", run]).exit_code == 0


def test_an_old_run_is_reported(tmp_path, whole):
    run = unsealed(shutil.copytree(whole, tmp_path / "run"))
    before = content(run)
    assert invoke(["report", run]).exit_code == 0
    assert resume(run).exit_code == 0
    after = content(run)
    assert {name for name in before if before[name] != after[name]} <= {"report.html"}


@pytest.mark.parametrize(
    ("change", "name", "message"),
    [
        (edit("config.json", "seed", to="3"), "config.json", "seed: expected a whole number from 0 on, got '3'"),
        (edit("environment.json", "resumed", to=None), "environment.json", "resumed: expected a list of sessions"),
        (edit("split.json", "test", to=[]), "split.json", "split: part 'test' is empty"),
        (write("split.json", "[]"), "split.json", "expected a JSON object, got list"),
        (cut(9), "metrics.jsonl", "holds "),
        (write("metrics.jsonl", "{\n" * 9999), "metrics.jsonl", "line 1 is not valid JSON"),
    ],
)
def test_an_old_run_is_checked_as_far_as_it_can_be(run, change, name, message):
    unsealed(run)
    change(run)
    assert refused(run).startswith(f"{run / name}: {message}")


def test_the_checkpoint_of_another_stage_of_an_old_run_is_refused(run):
    unsealed(run)
    shutil.copy(run / LEARN, run / NAIVE)
    assert refused(run) == (
        f"{run / NAIVE}: expected a checkpoint of stage sigma=0.1-naive, got one of stage sigma=0.1/learn"
    )
