"""The face of the core: what users import, each under one name, and nothing of images or commands with it."""

import subprocess
import sys

from metasynth import bilevel


def test_every_name_is_there_once():
    assert len(bilevel.__all__) == len(set(bilevel.__all__)) == 30
    missing = [name for name in bilevel.__all__ if not hasattr(bilevel, name)]
    assert missing == []


def test_the_core_imports_nothing_of_images_or_commands():
    code = (
        "import sys, metasynth.bilevel\n"
        "heavy = {'nibabel', 'h5py', 'matplotlib', 'cornucopia', 'nilearn', 'click', 'monai'} & set(sys.modules)\n"
        "print(sorted(heavy), sorted(m for m in sys.modules if m.startswith('metasynth.') and 'bilevel' not in m))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[] []\n"


def test_the_package_itself_is_light():
    code = "import sys, metasynth\nprint({'torch', 'numpy', 'higher'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
