"""One name, one meaning: every option of every command, walked."""

import re
from collections.abc import Iterator

import click
import pytest

from metasynth import __version__
from metasynth.cli.main import main
from metasynth.cli.options import Renamed
from metasynth.lines import GONE_IN

# How the help of each option begins, in every command that has it.
MEANINGS = {
    "--3d": "Whole volumes, for networks in 3D, instead of slices.",
    "--add": "Put a segmenter among them as NAME",
    "--align": "Bring the brains to one space",
    "--axis": "Slicing axis. Several with commas between them for a network that is to look along each.",
    "--bids": "INPUT is a BIDS data set",
    "--card": "What it is: data, licence, command, Dice and more.",
    "--channel": "Which channel of images that have several.",
    "--classes": "Score these alone",
    "--cohort": "template, mprage-young",
    "--config": "Settings, from the config.json of a run or a .toml file",
    "--curve": "What becomes of intensities: inverted (1 - x), bent (not monotone), or points",
    "--data": "HDF5 cache to use.",
    "--derivatives": "Where the segmentations are",
    "--desc": "desc- of the _dseg files",
    "--device": "What torch computes on",
    "--divisor": "Every length is a multiple of it.",
    "--every": "Between the slices of around:N.",
    "--generate": "Synthesise images from structures",
    "--head": "Keep what lies outside the brain, as structures",
    "--help": "Show this message and exit.",
    "--ids": "What the numbers in label maps are",
    "--image-name": "Image in mri/",
    "--image-suffix": "Suffix of the images of a BIDS data set.",
    "--images": "Images: file, folder, pattern or list",
    "--interpolation": "How labels are put on another grid.",
    "--jobs": "Processes side by side",
    "--json": "Print JSON, for programs.",
    "--keep-work": "Keep the work folder",
    "--label-cache": "HDF5 cache of label maps for synthesis",
    "--labels": "Their label maps, of the same names",
    "--launcher": "Who carries the runs out",
    "--launcher-set": "What the launcher is told of each job",
    "--log": "Hand the records on to tensorboard, mlflow, wandb",
    "--mapping": "Which ids become which class: ",
    "--margin": "Room around the labels.",
    "--masks": "Brain masks of the images' names: file, folder, pattern or list",
    "--min-content": "Least labels of a slice",
    "--model": "One of the package (metasynth models), a model file or the folder of a run",
    "--montage": "Draw example slices into a file.",
    "--n": "How many images.",
    "--no-montage": "Do not draw a picture beside the cache.",
    "--no-strip": "Keep what lies outside the brain: make a cache of whole heads.",
    "--out": "Where to write",
    "--overwrite": "Replace what is there already.",
    "--person": "What a person is called in the names of their scans",
    "--posteriors": "Write the posteriors of all classes too",
    "--preset": "Settings to start from",
    "--print-commands": "Print a shell command for each run instead of running any.",
    "--qc": "Draw a picture of each scan",
    "--quiet": "Plain lines instead of progress bars.",
    "--resample-labels": "Put label maps of another grid on their image's.",
    "--resume": "Continue the run, or the runs, in --out.",
    "--seed": "Seed of every random draw",
    "--seeds": "Run N seeds",
    "--seg-name": "Segmentation in mri/",
    "--set": "Change one setting",
    "--size": "Shape of a slice",
    "--slices": "all, around:N",
    "--source": "Origin, licence and citation",
    "--spacing": "Voxel size (x, y, z)",
    "--stage": "Which segmenter of a run that has several.",
    "--start": "Begin every training of a segmenter with the weights of a model",
    "--stripped": "The scans show the brain alone already.",
    "--subjects": "Whose images to estimate from",
    "--threads": "CPU threads of torch; by default half of the cores",
    "--transforms": "Matrices to the template's space",
    "--units": "What the files' affines are in",
    "--unknown": "What to do with ids the mapping does not name.",
    "--vary": "Run each value of a setting",
    "--verbose": "Say what is done, on standard error",
    "--version": "Show the version and exit.",
    "--volumes": "Write the volume of every class in mL",
}
RENAMED = {
    ("run", "--labels"): "--label-cache",
    ("predict", "--mask"): "--masks",
    ("freesurfer", "--image"): "--image-name",
    ("freesurfer", "--labels"): "--seg-name",
    **{(command, "--volumes"): "--3d" for command in ("labels", "nifti", "freesurfer", "bids", "nnunet")},
}


PROGRAM = click.Context(main, info_name="metasynth", **main.context_settings)


def commands(group: click.Command = main) -> Iterator[click.Command]:
    yield group
    for command in group.commands.values() if isinstance(group, click.Group) else ():
        yield from commands(command)


def context_of(command: click.Command) -> click.Context:
    """As the command has it within the program."""
    return click.Context(command, parent=PROGRAM, info_name=command.name)


def options(command: click.Command) -> Iterator[click.Option]:
    yield from (param for param in command.get_params(context_of(command)) if isinstance(param, click.Option))


SHOWN = [(command, option) for command in commands() for option in options(command) if not option.hidden]
OLD = [(command, option) for command, option in SHOWN if isinstance(option, Renamed)]


def test_every_option_has_the_meaning_of_its_name():
    found = {max(option.opts, key=len) for _, option in SHOWN}
    assert found == set(MEANINGS)
    for command, option in SHOWN:
        name = max(option.opts, key=len)
        assert (option.help or "").startswith(MEANINGS[name]), f"{command.name} {name}: {option.help}"


def test_an_option_takes_the_same_in_every_command():
    shapes = {}
    for command, option in SHOWN:
        shape = (option.is_flag, option.multiple, option.nargs, type(option.type))
        shapes.setdefault(max(option.opts, key=len), {}).setdefault(shape, []).append(command.name)
    assert {name: found for name, found in shapes.items() if len(found) > 1} == {}


def test_names_do_not_differ_by_a_plural_alone():
    names = set(MEANINGS)
    assert {name for name in names if f"{name}s" in names} == {"--seed"}  # the first seed, and how many


def test_the_old_spellings_are_known_and_not_shown():
    assert {(command.name, option.old): option.opts[0] for command, option in OLD} == RENAMED
    hidden = {(c.name, option.opts[0]) for c in commands() for option in options(c) if option.hidden}
    assert hidden == set(RENAMED)
    for command, option in OLD:
        assert not re.search(rf"^ +{option.old}\b(?!-)", command.get_help(context_of(command)), re.MULTILINE)


def parsed(command: click.Command, *given: str) -> dict[str, object]:
    """The parameters of a command line with something for all that is required."""
    needed = [param for param in command.params if param.required]
    words = [word for param in needed if isinstance(param, click.Option) for word in (param.opts[0], "x")]
    arguments = ["x" for param in needed if isinstance(param, click.Argument)]
    return command.make_context(command.name, [*words, *arguments, *given], parent=PROGRAM).params


@pytest.mark.parametrize(("command", "option"), OLD, ids=lambda part: getattr(part, "old", part.name))
def test_an_old_spelling_works_and_says_so(command, option, capsys):
    value = [] if option.is_flag else ["some"]
    new = parsed(command, option.opts[0], *value)
    assert capsys.readouterr().err == ""
    assert parsed(command, option.old, *value) == new != parsed(command)
    assert capsys.readouterr().err == f"{option.old} is now {option.opts[0]}; the old spelling goes in 0.3\n"
    if option.multiple:
        both = parsed(command, option.old, "a", option.opts[0], "b", option.old, "c")
        assert both[option.name] == ("b", "a", "c")
        assert len(capsys.readouterr().err.splitlines()) == 1
    else:
        with pytest.raises(click.UsageError) as caught:
            parsed(command, option.old, *value, option.opts[0], *value)
        assert caught.value.message == f"{option.old} is now {option.opts[0]}: expected one of them, got both"


def test_old_spellings_go_in_the_version_that_is_named():
    version = tuple(map(int, __version__.split(".")[:2]))
    assert version < tuple(map(int, GONE_IN.split("."))), "take the old spellings out"
