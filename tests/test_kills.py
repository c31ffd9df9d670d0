"""Commands that are killed around any change of a file's name: nothing is lost, nothing is left over after the next."""

import re
import shutil
import signal

import numpy as np
import pytest
from support.head_phantom import head_image, head_labels, save
from support.killing import Commands
from support.tiny_model import save_random
from support.tiny_noise import arguments, make_cache

SHAPE = (14, 18, 16)
TIMED = re.compile(
    r"(.*/)?(environment\.json|results\.json|SHA256SUMS|report\.html|table\.(md|csv)|.*\.log|checkpoints/.*\.pt|\.lock)"
)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Scans, label maps, a model and a cache of labels to work on."""
    folder = tmp_path_factory.mktemp("kills")
    for seed in range(2):
        ids = head_labels(seed, SHAPE)
        save(folder / "scans" / f"s{seed}.nii.gz", head_image(ids, seed))
        save(folder / "masks" / f"s{seed}.nii.gz", ((ids > 0) & (ids != 507)).astype(np.uint8))
        save(folder / "aseg" / f"s{seed}.nii.gz", ids)
    save_random(folder / "model.pt")
    make_cache(folder / "cache.h5")
    make_cache(folder / "images.h5", images=True)
    return folder


@pytest.fixture(scope="module")
def commands(place):
    found = Commands(place)
    yield found
    found.close()


def content(folder):
    """Every file below a folder: its bytes, but for those that hold times, and for results without them."""
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if not path.is_dir()}
    kept = {name: b"" if TIMED.fullmatch(name) else path.read_bytes() for name, path in found.items()}
    for name in (name for name in found if name.endswith("results.json")):
        kept[name] = re.sub(rb'"wall_s": [^,\n]+', b"", found[name].read_bytes())
    folders = {f"{path.relative_to(folder).as_posix()}/": b"" for path in folder.rglob("*") if path.is_dir()}
    return kept | folders


def killed_everywhere(commands, folder, command, moments, again=None, before=None, complete=None):
    """Kill the command at many moments, and compare what the next one leaves with what an undisturbed one does.

    Args:
        commands: carries them out.
        folder: of all that the command writes.
        command: killed, every time in a folder of its own.
        moments: gives (number of a change of a name, "before" or "after") of that many changes.
        again: gives what is carried out after a kill; by default the same command.
        before: makes what the command finds in the folder.
        complete: what the same command is refused with where nothing was left to do.

    """

    def fresh():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        if before:
            before()

    fresh()
    undisturbed = commands(command)
    assert undisturbed.status == 0, undisturbed.output
    whole = content(folder)
    assert not [name for name in whole if ".tmp" in name or ".work" in name]
    for number, when in moments(undisturbed.changes):
        fresh()
        assert commands(command, number, when).status != 0, (number, when)
        second = commands(again() if again else command)
        finished = complete and second.status == 2 and second.output.endswith(complete)
        assert second.status == 0 or finished, (number, when, second.output)
        now = content(folder)
        assert sorted(now.keys() ^ whole.keys()) == [], (number, when)
        assert [name for name in whole if now[name] != whole[name]] == [], (number, when)


def every(changes):
    return [(number, when) for number in range(changes) for when in ("before", "after")]


def some(changes):
    """Of the changes a few, the first and the last among them."""
    chosen = sorted({0, changes // 3, 2 * changes // 3, changes - 1})
    return [(number, "before" if i % 2 else "after") for i, number in enumerate(chosen)]


MOMENTS = pytest.mark.parametrize("moments", [some, pytest.param(every, marks=pytest.mark.slow)])
THERE = "exists already; give another name or --overwrite\n"


@pytest.fixture
def out(place):
    folder = place / "out"
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@MOMENTS
def test_preparations_of_label_maps(commands, out, moments):
    command = ["prep", "labels", "aseg", "--mapping", "freesurfer-4", "--out", "out/a.h5", "--jobs", 1]
    killed_everywhere(commands, out, command, moments, complete=f"Error: --out out/a.h5: {THERE}")


@MOMENTS
def test_preparations_of_images(commands, out, moments):
    command = ["prep", "nifti", "--images", "scans", "--labels", "aseg", "--mapping", "freesurfer-4", "--jobs", 1]
    command += ["--out", "out/a.h5"]
    killed_everywhere(commands, out, command, moments, complete=f"Error: --out out/a.h5: {THERE}")


COHORT, COPIED = ["prep", "template", "--out", "out/a.h5"], "--out out/a.h5: exists already; give another name\n"


@pytest.mark.slow
def test_embedded_cohorts(commands, out):
    killed_everywhere(commands, out, COHORT, every, complete=COPIED)


def test_copies_of_an_embedded_cohort(commands, place, out):
    kept = place / "kept"
    assert commands(["prep", "template"]).status == 0
    shutil.copytree(out / "kept", kept)
    killed_everywhere(commands, out, COHORT, every, complete=COPIED, before=lambda: shutil.copytree(kept, out / "kept"))


@MOMENTS
def test_remapped_caches(commands, out, moments):
    command = ["prep", "remap", "images.h5", "--curve", "bent", "--out", "out/a.h5"]
    killed_everywhere(commands, out, command, moments, complete=f"Error: --out out/a.h5: {THERE}")


@MOMENTS
def test_pictures_of_caches(commands, out, moments):
    command = ["inspect", "cache.h5", "--montage", "out/a.png"]
    killed_everywhere(commands, out, command, moments, complete=f"Error: --montage out/a.png: {THERE}")


@MOMENTS
def test_predictions(commands, out, moments):
    command = ["predict", "model.pt", "scans", "--mask", "masks", "--out", "out/maps", "--qc", "--posteriors"]
    command += ["--volumes", "out/volumes.csv", "--device", "cpu", "--threads", 1]
    killed_everywhere(commands, out, command, moments)


@MOMENTS
def test_scores(commands, out, moments):
    command = ["evaluate", "aseg", "aseg", "--out", "out/a.csv", "--classes", "2,3"]
    killed_everywhere(commands, out, command, moments, complete=f"Error: --out out/a.csv: {THERE}")


def resumed(out, command):
    """The command, told to go on where a run was begun in the folder."""
    return lambda: [*command, *(["--resume"] if out.is_dir() and any(out.iterdir()) else [])]


@pytest.mark.slow
def test_runs(commands, out):
    command = arguments("out/run", "cache.h5")

    def moments(changes):
        return every(changes)[::5]

    killed_everywhere(commands, out, command, moments, again=resumed(out / "run", command))


@pytest.mark.slow
def test_runs_within_the_window_of_a_hypergradient(commands, out):
    """Before its first checkpoint, and between that and the last; its records are those of an undisturbed run."""
    out.mkdir()
    settings = {"outer__horizon": "5", "outer__mean_of": "3", "outer__every": "6", "segmenter__steps": "19"}
    command = arguments("out/run", "cache.h5", baselines="false", **settings)
    assert commands(command).status == 0
    whole = content(out)
    shutil.rmtree(out / "run")
    for step, lines in ((6, 5), (9, 5), (15, 11)):  # windows begin at steps 5 and 11, from 0
        again = resumed(out / "run", command)()
        assert commands(again, step=step).status == -signal.SIGKILL
        assert (out / "run" / "metrics.jsonl").read_bytes().count(b"\n") == lines
    assert commands(resumed(out / "run", command)()).status == 0
    assert content(out) == whole


@MOMENTS
def test_reports(commands, place, out, moments):
    run = place / "finished"
    if not run.exists():
        assert commands(arguments("finished", "cache.h5", baselines="false")).status == 0

    def begun():
        shutil.copytree(run, out / "run")
        for path in ("report.html", "table.md", "figures"):
            shutil.rmtree(out / "run" / path, ignore_errors=True)
            (out / "run" / path).unlink(missing_ok=True)

    killed_everywhere(commands, out, ["report", "out/run"], moments, before=begun)


@pytest.mark.slow
def test_grids(commands, out):
    command = [*arguments("out/grid", "cache.h5", baselines="false"), "--seeds", 2, "--jobs", 1]

    def moments(changes):
        return every(changes)[:: 2 * (changes // 10) + 1]

    killed_everywhere(commands, out, command, moments, again=resumed(out / "grid", command))
