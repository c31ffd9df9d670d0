"""What is imported before there is work to do: bounded by what it is, not by how long it takes."""

import json
import subprocess
import sys

HEAVY = {
    "torch",
    "numpy",
    "scipy",
    "h5py",
    "matplotlib",
    "rich",
    "jinja2",
    "nibabel",
    "sklearn",
    "higher",
    "cornucopia",
}
OURS = {"click", "metasynth"}  # what may be imported besides the standard library
IMPORTED = "print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules} - set(sys.stdlib_module_names))))"
HELP = """
import json, sys
before = {name.partition('.')[0] for name in sys.modules}
from click.testing import CliRunner
from metasynth.cli.main import main

def walk(group, words):
    yield words
    for name, command in getattr(group, "commands", {}).items():
        yield from walk(command, [*words, name])

for words in walk(main, []):
    result = CliRunner().invoke(main, [*words, "--help"])
    assert result.exit_code == 0 and result.stdout.startswith("Usage: "), words
found = {name.partition('.')[0] for name in sys.modules} - before - set(sys.stdlib_module_names)
print(json.dumps(sorted(found)))
"""


def imported(code: str) -> set[str]:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout))


def test_a_job_imports_nothing_to_compute_with():
    """It waits for as long as its run takes, in memory that the run could have."""
    assert not imported(f"import json, sys, metasynth.running.jobs.job; {IMPORTED}") & HEAVY


def test_the_package_imports_the_standard_library_alone():
    assert not imported(f"import json, sys, metasynth; {IMPORTED}") & (HEAVY | {"click"})


def test_the_help_of_every_command_imports_click_alone():
    assert imported(HELP) <= OURS
