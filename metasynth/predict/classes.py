"""The classes that label maps are scored by."""

from dataclasses import dataclass, replace

from metasynth.data_prep.labels import LabelMapping, Unknown
from metasynth.errors import UsageError
from metasynth.text import shortened, shown, whole_number

MOST = 2**31  # above every id


@dataclass(frozen=True)
class Classes:
    """Which classes are scored, and how a reference's ids become them.

    Attributes
    ----------
    names : tuple of str or None
        By index, background first; None takes the labels themselves for names.
    chosen : tuple of int or None
        The indices that are scored; None: all above 0, or without names all above 0 that occur.
    mapping : LabelMapping or None
        Applied to references; None where they have the classes already.
    unknown : Unknown
        What happens to a reference's ids that the mapping does not name.
    numbers : tuple of int or None
        What label maps hold for the classes, and references without a mapping; None: their indices.
    """

    names: tuple[str, ...] | None = None
    chosen: tuple[int, ...] | None = None
    mapping: LabelMapping | None = None
    unknown: Unknown = "error"
    numbers: tuple[int, ...] | None = None

    def choose(self, text: str) -> "Classes":
        """The same with the classes of a text only: names or numbers with commas between them.

        Raises
        ------
        UsageError
            One of them is no class.
        """
        chosen = []
        for part in (part.strip() for part in text.split(",")):
            if self.names is not None and part in self.names:
                chosen.append(self.names.index(part))
            elif (k := whole_number(part)) is not None and 0 <= k < (len(self.names) if self.names else MOST):
                chosen.append(k)
            else:
                there = "numbers" if self.names is None else f"numbers or names of {', '.join(self.names)}"
                raise UsageError(f"--classes {shortened(text)}: expected {there}, got {shown(part)}")
        return replace(self, chosen=tuple(dict.fromkeys(chosen)))
