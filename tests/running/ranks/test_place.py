"""A folder that is gone when its process is."""

import signal
from pathlib import Path

import pytest
from support.processes import program, wait_for

from metasynth.running.ranks.place import own_place

KILLED = """
from metasynth.running.ranks.place import own_place
import sys
with own_place() as place:
    (place / "folder").mkdir()
    (place / "folder" / "file").write_text("a")
    print(place, flush=True)
    sys.stdin.read()
"""


def test_it_goes_with_the_block_also_by_an_error():
    with own_place() as place:
        (place / "file").write_text("a")
    with pytest.raises(KeyboardInterrupt), own_place() as other:
        raise KeyboardInterrupt
    assert not place.exists()
    assert not other.exists()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_it_goes_with_a_process_that_is_killed(number):
    process = program(KILLED, stdin=-1)
    place = Path(process.stdout.readline().strip())
    assert (place / "folder" / "file").is_file()
    process.send_signal(number)
    process.communicate()
    wait_for(lambda: not place.exists(), 20)
