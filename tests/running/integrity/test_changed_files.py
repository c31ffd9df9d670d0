"""What ties the files of a run together: none can be changed without a line that says so."""

import json
import shutil

import pytest
from support.changed_runs import (
    EDITED,
    LEARN,
    NAIVE,
    SEALED,
    change_a_digit,
    content,
    cut,
    edit,
    invoke,
    refused,
    resume,
    write,
)
from support.tiny_noise import arguments, results

from metasynth.running.checkpoint import load_checkpoint
from metasynth.running.integrity.json_files import with_digest, without_digest


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
