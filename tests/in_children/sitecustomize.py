"""What Python processes import first that commands of `killing` start: they can be killed there too."""

import os
import sys
from pathlib import Path

if "METASYNTH_TEST_KILL" in os.environ:
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from support.killing import VARIABLE, kill_around

    counter, number, when = os.environ[VARIABLE].rsplit(":", 2)
    kill_around(Path(counter), int(number), when)  # type: ignore[arg-type]
    sys.path.pop(0)
