"""`metasynth run --config FILE`: the settings of a run or of TOML, between the preset and --set."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from metasynth.experiments.comparison.settings import ComparisonConfig
from support.tiny_study import Tiny, tiny_experiment

from metasynth.cli.grid import GridRequest
from metasynth.cli.main import main
from metasynth.errors import UsageError
from metasynth.running import study
from metasynth.running.grid import Grid
from metasynth.running.settings.config import apply_overrides
from metasynth.running.settings.config_file import read_config_file
from metasynth.running.settings.renamed import tell_renamed


class Point:
    value = "tiny_study:EXPERIMENT"

    def load(self):
        return tiny_experiment()


@pytest.fixture
def cli(monkeypatch, tmp_path) -> Callable[..., Result]:
    """`metasynth run` in an empty folder, with the tiny study by two names."""
    monkeypatch.setattr(study, "discover_experiments", lambda: {"tiny": Point()})
    monkeypatch.chdir(tmp_path)
    return lambda *words: CliRunner().invoke(main, ["run", "tiny", "--device", "cpu", "--threads", "1", *words])


def files_of(run: str) -> dict[str, bytes]:
    return {name: Path(run, name).read_bytes() for name in ("config.json", "metrics.jsonl", "table.csv")}


TOML = 'steps = 3\nkind = "uniform"\n\n[outer]\nlr = 0.25\n'


@pytest.mark.parametrize(
    "text", [TOML, 'outer.lr = 0.25\nsteps = 3\nkind = "uniform"', f"\ufeff{TOML}".replace("\n", "\r\n")]
)
def test_a_file_gives_what_the_same_sets_give(cli, text):
    Path("fast.toml").write_bytes(text.encode())
    assert cli("--out", "a", "--config", "fast.toml").exit_code == 0
    sets = ("--set", "steps=3", "--set", "kind=uniform", "--set", "outer.lr=0.25")
    assert cli("--out", "b", *sets).exit_code == 0
    assert files_of("a") == files_of("b")
    assert cli("--out", "c", "--config", "a/config.json").exit_code == 0
    assert files_of("c") == files_of("a")


def test_set_wins_over_the_file_and_the_file_over_the_preset(cli):
    Path("fast.toml").write_text(TOML)
    assert cli("--out", "a", "--preset", "standard", "--config", "fast.toml", "--set", "steps=2").exit_code == 0
    run = json.loads(Path("a/config.json").read_text())
    assert run["config"] == {"steps": 2, "kind": "uniform", "outer": {"lr": 0.25}}
    assert run["preset"] == "standard"
    assert "fast" not in Path("a/config.json").read_text()


def test_a_run_gives_its_settings_alone(cli):
    assert cli("--out", "a", "--preset", "standard", "--seed", "7", "--set", "steps=3").exit_code == 0
    assert cli("--out", "b", "--config", "a/config.json").exit_code == 0
    run = json.loads(Path("b/config.json").read_text())
    assert (run["preset"], run["seed"], run["config"]["steps"]) == ("quick", 0, 3)


def test_a_resumed_run_may_be_given_its_file_again_and_no_other(cli):
    Path("fast.toml").write_text(TOML)
    assert cli("--out", "a", "--config", "fast.toml").exit_code == 0
    assert cli("--out", "a", "--config", "fast.toml", "--resume").exit_code == 0
    Path("fast.toml").write_text(TOML.replace("3", "4"))
    refused = cli("--out", "a", "--config", "fast.toml", "--resume")
    assert refused.exit_code == 2
    assert refused.stderr.splitlines()[-1] == "Error: a: cannot resume with other settings: config.steps: 3 -> 4"


def test_values_may_be_given_so_that_they_fit_with_set_alone(cli):
    """What is refused is what results, not what the file alone would be."""
    Path("odd.toml").write_text("outer.lr = -1.0")
    assert cli("--out", "a", "--config", "odd.toml", "--set", "outer.lr=0.5").exit_code == 0
    refused = cli("--out", "b", "--config", "odd.toml", "--set", "steps=9")
    assert refused.exit_code == 2
    assert refused.stderr.splitlines()[
        -1
    ] == "Error: --config odd.toml: outer.lr: lr must be positive, got -1.0".replace("outer.lr: lr", "outer.lr: lr")
    assert not Path("b").exists()


def run_file(**changes: object) -> str:
    run = {"format": "metasynth-run/2", "experiment": "tiny", "config": {"steps": 3}}
    return json.dumps({**run, **changes})


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("f.toml", "stesp = 3", ": unknown setting 'stesp': did you mean 'steps'?"),
        ("f.toml", "[outre]\nlr = 3", ": unknown setting 'outre.lr': did you mean 'outer.lr'?"),
        ("f.toml", "[outre]", ": unknown setting 'outre': did you mean 'outer.lr'?"),
        ("f.toml", "outer = 3", ": setting 'outer' is a group: set one of outer.lr"),
        ("f.toml", 'steps = "3"', ": steps: expected a whole number, got '3'"),
        ("f.toml", "steps = 3.0", ": steps: expected a whole number, got 3.0"),
        ("f.toml", "steps = [3]", ": steps: expected a whole number, got [3]"),
        ("f.toml", "steps.more = 3", ": steps: expected a whole number, got {'more': 3}"),
        ("f.toml", "outer.lr = nan", ": outer.lr: expected text, a finite number, true, false or null, got nan"),
        (
            "f.toml",
            "steps = 1979-05-27",
            ": steps: expected text, a finite number, true, false or null, got datetime.date(1979, 5, 27)",
        ),
        ("f.toml", 'kind = "x"', ": kind: expected one of normal, uniform, got 'x'"),
        ("f.toml", '"outer.lr" = 1\n[outer]\nlr = 2', ": outer.lr: expected it once, got it twice"),
        ("f.toml", "steps = 3\nkind", ", line 2: is not valid TOML: Expected '=' after a key in a key/value pair"),
        ("f.toml", "steps = 3\nsteps = 4", ", line 2: is not valid TOML: Cannot overwrite a value"),
        ("f.toml", 'kind = "', ", line 1: is not valid TOML: Unterminated string"),
        ("f.toml", f"steps = {'[' * 9999}", ": is not valid TOML: "),
        ("f.json", "{", ", line 1: is not valid JSON: Expecting property name enclosed in double quotes"),
        (
            "f.json",
            '{"steps": 3}',
            ": expected the config.json of a run (its format 'metasynth-run/2'), got something else",
        ),
        ("f.json", run_file(experiment="noise"), ": expected settings of 'tiny', got those of a run of 'noise'"),
        ("f.json", run_file(config=3), ": config: expected an object, got 3"),
        ("f.json", run_file(config={"steps": None}), ": steps: expected a whole number, got None"),
        ("f.json", run_file(config={"outer": {"rl": 1}}), ": unknown setting 'outer.rl': did you mean 'outer.lr'?"),
        ("f.yaml", "steps: 3", ": expected the config.json of a run, or a file whose name ends in .toml"),
    ],
)
def test_what_is_wrong_with_a_file_is_one_line(cli, tmp_path, name, text, message):
    Path(name).write_text(text)
    result = cli("--out", "a", "--config", name)
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith(f"Error: --config {name}{message}")
    assert result.stderr.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gone.toml", "--config gone.toml: the file is missing"),
        ("folder.toml", "--config folder.toml: expected a text file, got a folder"),
        ("", "Invalid value for '--config': expected a path, got ''"),
    ],
)
def test_what_is_no_file_is_one_line(cli, name, message):
    Path("folder.toml").mkdir()
    result = cli("--out", "a", "--config", name)
    assert (result.exit_code, result.stderr) == (2, f"Error: {message}\n")


def test_a_grid_takes_a_file_but_for_what_it_varies(tmp_path):
    (tmp_path / "fast.toml").write_text(TOML)
    given = (*read_config_file(tmp_path / "fast.toml", "tiny", Tiny()), "outer.lr=0.5")
    request = GridRequest(None, 2, None, ("steps=5,6",), given, None, "auto", None, None)
    grid = request.settled("tiny", None)
    assert grid.to_json()["set"] == ["kind=uniform", "outer.lr=0.25", "outer.lr=0.5"]
    assert [(config.steps, config.outer.lr) for config in grid.configurations(Tiny())] == [(5, 0.5), (6, 0.5)]
    recorded = Grid.from_json(json.loads(json.dumps(grid.to_json())))
    assert recorded == grid
    assert request.settled("tiny", recorded) == grid


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('domain = " a"', "domain: expected a value that --set can give, got ' a'"),
        ('tests = ["t2=a,b.h5"]', "tests: expected a value that --set can give, got ['t2=a,b.h5']"),
        ('sigma = ["0.1:0.2"]', "unknown setting 'sigma'"),
        ("interpolations = 0.5", "interpolations: expected a list, each a finite number, got 0.5"),
        (
            "segmenter.network_arguments = 3",
            'segmenter.network_arguments: got 3: must be a JSON object such as {"features',
        ),
    ],
)
def test_what_set_cannot_give_is_refused(tmp_path, text, message):
    """A grid hands settings to its runs as --set does."""
    path = tmp_path / "f.toml"
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        read_config_file(path, "real_world", ComparisonConfig())
    assert str(caught.value).startswith(f"--config {path}: {message}")


def test_objects_and_empty_groups_are_taken(tmp_path):
    path = tmp_path / "f.toml"
    path.write_text(
        'tests = ["t2=a.h5"]\n[segmenter]\nnetwork = "monai"\n[segmenter.network_arguments]\n'
        'class = "UNet"\nchannels = [8, 16]\n[pace]\n'
    )
    overrides = read_config_file(path, "real_world", ComparisonConfig())
    arguments = 'segmenter.network_arguments={"channels": [8, 16], "class": "UNet"}'
    assert overrides == ("tests=t2=a.h5", "segmenter.network=monai", arguments)
    config = apply_overrides(ComparisonConfig(), overrides)
    assert config.segmenter.network_arguments.to_json() == {"class": "UNet", "channels": [8, 16]}


def test_settings_with_earlier_names_are_taken(tmp_path, caplog):
    tell_renamed.cache_clear()
    path = tmp_path / "f.toml"
    path.write_text('segmenter.network = "monai"\nsegmenter.monai = "UNet"\nsegmenter.monai_arguments.channels = [8]\n')
    overrides = read_config_file(path, "real_world", ComparisonConfig())
    config = apply_overrides(ComparisonConfig(), overrides)
    assert config.segmenter.network_arguments.to_json() == {"class": "UNet", "channels": [8]}
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == [
        f"segmenter.{old} is now segmenter.network_arguments; the old spelling goes in 0.3"
        for old in ("monai", "monai_arguments")
    ]
