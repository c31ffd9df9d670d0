"""Help that lists what there is takes it from where it is kept."""

from itertools import product

import click
import pytest
from click.testing import CliRunner
from metasynth.data_prep import mapping_names
from metasynth.data_prep.cohorts.cohort import COHORTS
from metasynth.data_prep.mapping_names import catalogue
from metasynth.data_prep.mappings import MAPPINGS
from metasynth.data_prep.structures import TABLES

from metasynth.cli.main import main
from metasynth.cli.prep import COHORT_HELP

OASIS_NAMES = ["oasis-4", "oasis-24", "oasis-tissue"]


def help_of(*words: str) -> str:
    """What --help says, with its lines joined."""
    result = CliRunner().invoke(main, [*words, "--help"], max_content_width=10_000, terminal_width=10_000)
    return " ".join(result.stdout.split())


def test_the_catalogue_holds_all_mappings():
    assert list(mapping_names.IDS) == list(MAPPINGS)
    assert catalogue("MUSE") == "muse-4, muse-5 (ids of MUSE)"
    assert catalogue("neurite-OASIS") == f"{', '.join(OASIS_NAMES)} (ids of neurite-OASIS)"
    words = catalogue().replace(",", "").replace("(ids of neurite-OASIS)", "").split()
    assert [word for word in words if "-" in word] == list(MAPPINGS)


@pytest.mark.parametrize(
    "words",
    [["evaluate"], *(["prep", name] for name in ("labels", "nifti", "freesurfer", "bids", "nnunet", "oasis2d"))],
)
def test_help_lists_the_mappings_of_the_table(words):
    ids = "neurite-OASIS" if "oasis2d" in words else ""
    said = f"--mapping NAME|CSV Which ids become which class: {catalogue(ids)}, or a file of lines id,class."
    assert said in help_of(*words)


@pytest.mark.parametrize("name", ["labels", "nifti", "freesurfer", "bids", "nnunet"])
def test_help_lists_the_tables_of_structures(name):
    assert list(mapping_names.STRUCTURES) == list(TABLES)
    said = "finer than the classes: freesurfer-structures (ids of FreeSurfer) or muse-structures (ids of MUSE)."
    assert said in help_of("prep", name)


def test_every_command_with_a_mapping_is_looked_at():
    prep = main.commands["prep"]
    assert isinstance(prep, click.Group)
    every = [*main.commands.values(), *prep.commands.values()]
    having = {command.name for command in every if any(param.name == "mapping" for param in command.params)}
    assert having == {"evaluate", "labels", "nifti", "freesurfer", "bids", "nnunet", "oasis2d"}


def test_help_tells_all_cohorts():
    names, sizes = COHORT_HELP.removesuffix(".").split(", then ")
    names, sizes = (text.replace(" or ", ", ").split(", ") for text in (names, sizes))
    assert {name + size for name, size in product(names, sizes)} == set(COHORTS)


@pytest.mark.parametrize(("name", "ids"), [("freesurfer-4", "FreeSurfer"), ("muse-5", "MUSE")])
def test_a_mapping_of_other_ids_is_refused_for_oasis(tmp_path, monkeypatch, name, ids):
    """Its ids 1 to 24 are others, so that every class would be wrong."""
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, ["prep", "oasis2d", ".", "--mapping", name, "--out", "o.h5"])
    assert result.exit_code == 2
    assert result.stderr == (
        f"Error: --mapping {name}: expected {catalogue('neurite-OASIS')} or a file of lines id,class, got one of "
        f"{ids}'s ids\n"
    )
    assert not any(tmp_path.iterdir())
