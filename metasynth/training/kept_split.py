"""Who is for what in a run that goes on: as it was divided when it began."""

from metasynth.data.splits import Split
from metasynth.errors import DataError
from metasynth.running.integrity.checks import SPLIT
from metasynth.running.study import StudyContext


def kept_split(context: StudyContext) -> Split | None:
    """The division that a resumed run has kept, if it has; DataError if it is none."""
    path = context.folder.path / SPLIT
    if not (context.resume and path.is_file()):
        return None
    try:
        return Split.from_dict(context.folder.read_json(SPLIT))
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
