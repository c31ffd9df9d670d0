"""The files of a run: which there are, and what those that reports read must look like before anything is made of them.

=========================================  ==============================  ====================================
file                                       written by                      read back by
=========================================  ==============================  ====================================
``config.json``, ``environment.json``      `metasynth.running.records`     ``--resume``, ``report``, ``--config``
``split.json``                             the study                       ``--resume``, some reports
``metrics.jsonl``                          `metasynth.training.loop`       ``--resume``, the study's reports
``checkpoints/*/*.pt``                     `metasynth.training.loop`       ``--resume``
``models/*.pt``                            `metasynth.training.stages`     ``predict``
``examples.npz``                           `metasynth.running.examples`    the study's report
``results.json``                           `metasynth.run`                 ``report``, reports on grids
``SHA256SUMS``                             `metasynth.running.records`     ``report``
``table.*``, ``figures/``, ``report.html`` `metasynth.report.html`         people
=========================================  ==============================  ====================================

A study adds what its own report reads, by the name of the file (``Experiment.contents``).
"""

from collections.abc import Mapping
from typing import Any

from metasynth.errors import DataError
from metasynth.running.manifest import MANIFEST
from metasynth.running.records import CONFIG, ENVIRONMENT, METRICS, RESULTS, RunFolder
from metasynth.schema import (
    COUNT,
    FLAG,
    NUMBER,
    TEXT,
    Problem,
    Schema,
    either,
    entries,
    expect,
    json_value,
    listing,
    mapping,
    maybe,
    scalar,
)

_LAST = 253402300800  # the year 10000, which no date can be in
TIME = scalar("seconds since 1970", lambda value: NUMBER(value) is None and 0 <= value < _LAST)
RESULT = entries(
    {
        "experiment": TEXT,
        "preset": TEXT,
        "seed": COUNT,
        "device": TEXT,
        "wall_s": NUMBER,
        "rows": listing(mapping(json_value)),
        "reference": mapping(json_value),
    }
)
RECORDS = listing(mapping(json_value))
_PLAIN = maybe(either(either(TEXT, FLAG), NUMBER))


def _surroundings(value: Any) -> Problem | None:
    """What is wrong with environment.json: times, and plain values of everything else."""
    times = entries({"started": TIME, "resumed": listing(entries({"started": TIME}))})(value)
    return times or mapping(_PLAIN)({key: one for key, one in value.items() if key != "resumed"})


def check_manifest(folder: RunFolder) -> None:
    """Require that config.json has what identifies a run; DataError naming the entry that is wrong."""
    expect(folder.manifest, MANIFEST, str(folder.path / CONFIG))


def check_files(folder: RunFolder, contents: Mapping[str, Schema]) -> None:
    """Require that a finished run's files are whole, of one run, and have what its report reads.

    Raises
    ------
    DataError
        One is missing, damaged, of another run, or has an entry that is wrong; file and entry are named.
    """
    check_manifest(folder)
    results, manifest = folder.results, folder.manifest
    expect(results, RESULT, str(folder.path / RESULTS))
    for key in ("experiment", "preset", "seed"):
        if results[key] != manifest[key]:
            raise DataError(
                f"{folder.path / RESULTS}: {key}: expected {manifest[key]!r}, as in {CONFIG}, got {results[key]!r}"
            )
    expect(folder.read_json(ENVIRONMENT), _surroundings, str(folder.path / ENVIRONMENT))
    for name, schema in {METRICS: RECORDS, **contents}.items():
        read = {CONFIG: manifest, RESULTS: results}
        value = folder.read_metrics() if name == METRICS else read[name] if name in read else folder.read_json(name)
        if name == METRICS:
            expect(value, RECORDS, str(folder.path / name))
        expect(value, schema, str(folder.path / name))
