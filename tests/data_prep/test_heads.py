"""Caches of whole heads: label maps with tissue outside the brain, and scans that nothing is cut off from."""

import nibabel as nib
import numpy as np
import pytest
from click.testing import CliRunner
from metasynth.data_prep.mappings import MAPPINGS
from metasynth.data_prep.structure_tables import HEAD_NAMES, STRUCTURE_NAMES
from metasynth.data_prep.structures import HEADS, with_structures
from support.head_phantom import as_muse, head_image, head_labels, save

from metasynth.cli.main import main
from metasynth.data.cache import Cache


def prep(*arguments):
    return CliRunner().invoke(main, ["prep", *map(str, arguments), "--no-montage", "--quiet"])


def made(*arguments):
    result = prep(*arguments)
    assert result.exit_code == 0, result.output
    return Cache(arguments[arguments.index("--out") + 1])


def refused(*arguments):
    result = prep(*arguments)
    assert result.exit_code == 2
    return result.stderr.splitlines()[-1].removeprefix("Error: ")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """FreeSurfer's ids in maps/, in muse/ the same people's of MUSE, and in scans/ what they look like."""
    monkeypatch.chdir(tmp_path)
    for seed in range(3):
        ids = head_labels(seed)
        ids[ids == 507] = np.where(np.indices(ids.shape)[2] > 20, 507, 511)[ids == 507]
        save(tmp_path / "maps" / f"s{seed}.nii.gz", ids)
        save(tmp_path / "muse" / f"s{seed}.nii.gz", as_muse(head_labels(seed)))
        save(tmp_path / "scans" / f"s{seed}.nii.gz", head_image(head_labels(seed)))
    return tmp_path


MAPS = ("labels", "maps", "--head", "--generate", "freesurfer-structures", "--mapping", "freesurfer-5")
SCANS = ("nifti", "--images", "scans", "--labels", "muse", "--no-strip", "--mapping", "muse-5")


def test_what_the_structures_outside_the_brain_are():
    assert HEAD_NAMES[: len(STRUCTURE_NAMES)] == STRUCTURE_NAMES
    assert HEAD_NAMES[len(STRUCTURE_NAMES) :] == (
        *("skin", "soft tissue", "cortical bone", "cancellous bone", "mucosa", "eye", "muscle of the eye"),
        *("optic nerve", "spinal cord", "artery", "vein"),
    )
    names = {i: HEAD_NAMES[g] for i, g in HEADS["freesurfer-structures"].items()}
    assert [names[i] for i in (502, 506, 507, 508, 509, 511, 512, 514, 515, 516, 530)] == [
        *("artery", "eye", "soft tissue", "muscle of the eye", "mucosa", "skin", "spinal cord", "vein"),
        *("cortical bone", "cancellous bone", "optic nerve"),
    ]
    assert [names[i] for i in (165, 258, 259, 520)] == [
        *("cortical bone", "soft tissue", "eye", "fluid outside the ventricles"),
    ]
    assert [names[i] for i in (0, 130, 501)] == ["background"] * 3
    assert {HEADS["muse-structures"][i] for i in (0, 59)} == {0, 11}


def test_a_cache_of_label_maps_keeps_what_lies_outside_the_brain(folder):
    with made(*MAPS, "--slices", "all", "--min-content", 0, "--out", "maps.h5") as cache:
        info = cache.info
        assert (info.shows, info.version) == ("head", 3)
        assert cache.generation_names == HEAD_NAMES
        assert set(info.target[len(STRUCTURE_NAMES) :]) == {0}
        assert "; whole heads are synthesised from freesurfer-structures: 32 structures" in info.mapping
        structures, classes = cache.read_structures(range(cache.n)), cache.read_labels(range(cache.n))
        skin, soft = (structures == HEAD_NAMES.index(name) for name in ("skin", "soft tissue"))
        assert skin.any()
        assert soft.any()
        assert not classes[skin | soft].any()
        first = cache.subject_index == 0
        ids = nib.load("maps/s0.nii.gz").get_fdata()
        assert np.count_nonzero(skin[first]) == np.count_nonzero(ids == 511)
        # Planes of the head without brain are among the slices: a network is to know them too.
        assert (~classes.reshape(cache.n, -1).any(1)).any()


def test_brains_alone_are_made_as_before(folder):
    with made(*MAPS[:2], *MAPS[3:], "--out", "brains.h5") as cache:
        assert (cache.info.shows, cache.info.version, cache.generation_names) == ("brain", 2, STRUCTURE_NAMES)
        assert "shows" not in cache.info.described()


def test_scans_of_heads_have_the_structures_of_the_label_maps(folder):
    with made(*SCANS, "--generate", "muse-structures", "--slices", "all", "--out", "scans.h5") as cache:
        assert (cache.info.shows, cache.generation_names) == ("head", HEAD_NAMES)
        structures, images = cache.read_structures(range(cache.n)), cache.read_images(range(cache.n))
        outside = structures == HEAD_NAMES.index("soft tissue")
        # The phantom's scalp, which MUSE's ids do not name: brightest of all.
        assert images[outside].mean() > 0.9
        assert not cache.read_labels(range(cache.n))[outside].any()
        assert images[structures == 0].max() <= 0.1


def test_scans_of_heads_without_structures(folder):
    with made(*SCANS, "--out", "scans.h5") as cache:
        assert (cache.info.shows, cache.info.version, cache.info.has_generation) == ("head", 3, False)
        assert cache.generation_names == cache.class_names
        assert cache.read_images([0])[cache.read_labels([0]) == 0].max() == 1


def test_heads_need_structures_outside_the_brain(folder):
    line = refused("labels", "maps", "--head", "--mapping", "freesurfer-5", "--out", "x.h5")
    assert line == (
        "--head: --mapping freesurfer-5 has no structure outside the brain to synthesise a head from; expected "
        "--generate freesurfer-structures, or ids such as 511 in a file of lines id,class,structure"
    )
    line = refused("labels", "muse", "--head", "--mapping", "muse-5", "--generate", "muse-structures", "--out", "x.h5")
    assert line.startswith("--head: --mapping muse-5 has no structure outside the brain")
    (folder / "own.csv").write_text("2,white,white\n41,white,white\n511,background,skin\n")
    arguments = ("labels", "maps", "--head", "--mapping", "own.csv", "--unknown", "background", "--out", "own.h5")
    with made(*arguments) as cache:
        assert (cache.info.shows, cache.generation_names) == ("head", ("background", "white", "skin"))


def test_masks_are_of_no_use_to_whole_heads(folder):
    line = refused(*SCANS, "--masks", "muse", "--out", "x.h5")
    assert line == "--masks: cannot go with --no-strip, as images of whole heads need no mask"


def test_a_mapping_of_heads_goes_on_where_that_of_brains_ends():
    brain, head = (with_structures(MAPPINGS["freesurfer-4"], "freesurfer-structures", head=head) for head in (0, 1))
    assert head.structures.names[:22] == brain.structures.names
    assert head.structures.target[:22] == brain.structures.target
    assert all(head.structures.labels[i] == g for i, g in brain.structures.labels.items())


def test_inspect_says_that_heads_are_shown(folder):
    made(*SCANS, "--out", "scans.h5").close()
    assert "shows       whole heads\n" in CliRunner().invoke(main, ["inspect", "scans.h5"]).stdout
