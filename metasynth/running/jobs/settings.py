"""What a launcher is told: the values of ``--launcher-set``, read and checked before anything is submitted."""

import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from metasynth.errors import UsageError
from metasynth.running.settings.config import nearest

Kind = tuple[str, Callable[[str], Any]]
"""What is expected, in words, and what makes a value of a text, or raises ValueError."""


def _from(least: int) -> Kind:
    def read(text: str) -> int:
        value = int(text)
        if value < least:
            raise ValueError(text)
        return value

    return f"a whole number of at least {least}", read


def _gigabytes(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise ValueError(text)
    return value


def _truth(text: str) -> bool:
    return {"true": True, "false": False}[text.lower()]


TEXT: Kind = ("a text", str)
LINE: Kind = ("a command", lambda text: [text])
WORDS: Kind = ("words", shlex.split)
TRUTH: Kind = ("true or false", _truth)

LOCAL: Mapping[str, Kind] = {"timeout_min": _from(1), "signal_delay_s": _from(1), "max_num_timeout": _from(0)}
"""Of processes of this machine."""

SLURM: Mapping[str, Kind] = {
    **LOCAL,
    **{key: _from(1) for key in ("cpus_per_task", "cpus_per_gpu")},
    **{key: _from(0) for key in ("gpus_per_node", "gpus_per_task")},
    **dict.fromkeys(("partition", "account", "qos", "constraint", "gres", "nodelist", "exclude", "dependency"), TEXT),
    **dict.fromkeys(("name", "comment", "wckey", "mail_type", "mail_user", "mem", "mem_per_cpu", "mem_per_gpu"), TEXT),
    **dict.fromkeys(("setup", "teardown"), LINE),
    **dict.fromkeys(("exclusive", "use_srun"), TRUTH),
    "mem_gb": ("a number of gigabytes", _gigabytes),
    "srun_args": WORDS,
}
"""Of Slurm, by the names that `submitit` has for them: those of ``sbatch`` with '_' for '-', and a few of its own.

A run is one process on one machine, so how many of these a job has is no setting.
"""


def read_settings(texts: Sequence[str], known: Mapping[str, Kind]) -> dict[str, Any]:
    """The values of 'KEY=VALUE,...' texts; where values have commas themselves, ';' stands between the pairs.

    Parameters
    ----------
    texts : sequence of str
    known : mapping of str to Kind
        The settings there are.

    Returns
    -------
    dict

    Raises
    ------
    UsageError
        A text has another form, a setting is unknown or given twice, or a value is none.
    """
    values: dict[str, Any] = {}
    for text in texts:
        for pair in text.split(";" if ";" in text else ","):
            key, equals, value = (part.strip() for part in pair.partition("="))
            if not (key and equals and value):
                raise UsageError(f"--launcher-set {text}: expected KEY=VALUE,..., for example timeout_min=240")
            if key not in known:
                raise UsageError(f"--launcher-set {key}: there is no such setting: {nearest(key, sorted(known))}")
            if key in values:
                raise UsageError(f"--launcher-set {key}: is given twice")
            values[key] = _read(key, value, known[key])
    return values


def _read(key: str, text: str, kind: Kind) -> Any:
    expected, read = kind
    try:
        return read(text)
    except (ValueError, KeyError):
        raise UsageError(f"--launcher-set {key}: expected {expected}, got {text!r}") from None
