"""What the methods of a study are called, those among them that other packages bring."""

from collections.abc import Callable, Iterator, Mapping
from typing import final

from metasynth.augment.entry import AugmenterEntry
from metasynth.augment.table import known_entry


@final
class Titles(Mapping[str, str]):
    """Method -> title; a method of an augmenter from outside the package has its title when it is asked for.

    Parameters
    ----------
    own : mapping
        Those of the study, which alone are gone through.
    added : callable
        The title of a method that learns the augmenter of a line of the table.
    """

    def __init__(self, own: Mapping[str, str], added: Callable[[AugmenterEntry], str]) -> None:
        self._own, self._added = dict(own), added

    def __getitem__(self, name: str) -> str:
        if name in self._own:
            return self._own[name]
        entry = known_entry(name)
        if entry is None:
            raise KeyError(name)
        return self._added(entry)

    def __iter__(self) -> Iterator[str]:
        return iter(self._own)

    def __len__(self) -> int:
        return len(self._own)
