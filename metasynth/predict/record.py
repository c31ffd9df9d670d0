"""`segmentation.json`: which model made the label maps of a folder, and of every file what it was made from.

A file is noted as unfinished before it is written and with its origin after it; so a process that is killed between
leaves no file that is taken for another model's, scan's or mask's. Several processes may fill one folder: the record
is read, changed and written again under a lock.
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from metasynth.data_prep.sources import Scan
from metasynth.errors import RunError, UsageError
from metasynth.files import write_atomically
from metasynth.outputs import first_bytes, is_picture
from metasynth.predict.files import digest_of, is_label_map, take_lock
from metasynth.predict.naming.names import Ids, labels_of
from metasynth.predict.recorded import RECORD, Origin, is_record, of_others
from metasynth.segment.model_description import ModelDescription
from metasynth.text import parse_json

LOCK = ".segmentation.lock"
VOLUMES, REPLACED = "volumes_sha256", "volumes_replaced_sha256"


class FolderRecord:
    """The record of one folder, for a command that fills it with one model's label maps.

    Parameters
    ----------
    folder : Path
        The folder; it need not exist.
    description : ModelDescription
        Of the model.
    digest : str
        Of the model's file.
    ids : Ids
        What numbers the label maps hold.

    Raises
    ------
    UsageError
        The record cannot be read, or a class has no such id.
    """

    def __init__(self, folder: Path, description: ModelDescription, digest: str, ids: Ids = "classes") -> None:
        self.folder, self.ids = folder, ids
        self.class_names = names = description.class_names
        numbers = [label.index for label in labels_of(names, ids)]
        self._head = {"classes": names, "ids": ids, "numbers": numbers, "sha256": digest, "model": asdict(description)}
        self._content = self._read()

    @property
    def digest(self) -> str:
        """Digest of the command's model."""
        return str(self._head["sha256"])

    @property
    def model(self) -> str | None:
        """Digest of the model that the folder is of; None where it has no record."""
        return self._content.get("sha256")

    @property
    def origin(self) -> Origin:
        """Of files that are made from no scan."""
        return {"model": self.digest, **({} if self.ids == "classes" else {"ids": self.ids})}

    @property
    def tables(self) -> set[str]:
        """Digests of the table of volumes that was last written of these label maps, and of one that it may replace."""
        return {self._content[key] for key in (VOLUMES, REPLACED) if key in self._content}

    @property
    def has_other_ids(self) -> bool:
        """Whether the folder is of label maps that hold other numbers."""
        return self.model is not None and self._content.get("ids", "classes") != self.ids

    def knows(self, path: Path) -> bool:
        """Whether this program wrote a file of the folder, or was about to."""
        return self._name(path) in self._content["outputs"]

    def difference(self, path: Path, origin: Origin) -> str | None:
        """How a file came about otherwise than it would now, in words; None where it did not."""
        then = self._content["outputs"].get(self._name(path), {})
        if then is None:
            return "is unfinished"
        if "model" not in then:
            return "is not in the folder's record"
        if then["model"] != origin["model"]:
            return "was made by another model"
        if then.get("ids") != origin.get("ids"):
            return "was made with other --ids"
        if "scan" not in then or "scan" not in origin:
            return None
        if then["scan"] != origin["scan"]:
            return "was made of another scan of this name"
        if then["mask"] != origin["mask"]:
            return f"was made with{'out a' if then['mask'] is None else ' another'} mask"
        return None

    def is_unfinished(self, path: Path) -> bool:
        """Whether the file was being written when a process ended."""
        return self._content["outputs"].get(self._name(path), {}) is None

    def is_old(self, path: Path) -> bool:
        """Whether it is not known which scan and mask the file was made of, as earlier versions did not note it."""
        return "scan" not in (self._content["outputs"].get(self._name(path)) or {"scan": None})

    def of_other_models(self) -> list[str]:
        """Files that are there and that other models than the command's made, or that hold other ids."""
        return of_others(self._content["outputs"], self.folder, self.digest, self.ids)

    def begin(self) -> None:
        """Write that the folder is of the command's model from now on."""
        with self.locked():
            self._write({**self._read(), **self._head})

    def note(self, origins: Mapping[Path, Origin | None], **further: str | None) -> None:
        """Write what files were made from, None where they are about to be; the lock must be held.

        Further entries are written too, and those that are None removed.

        Raises
        ------
        RunError
            Another command has taken the folder for another model, or the record cannot be written.
        """
        content = self._read()
        if (content.get("sha256"), content.get("ids", "classes")) != (self.digest, self.ids):
            raise RunError(f"{self.folder}: another command writes label maps of another model into this folder")
        content["outputs"] |= {self._name(path): origin for path, origin in origins.items()}
        self._write({key: value for key, value in {**content, **further}.items() if value is not None})

    def note_table(self, path: Path, digest: str) -> None:
        """Write the digest of the table of volumes that is about to be written; the lock must be held."""
        before = digest_of(path) if path.is_file() else None
        replaced = before if before != digest and before in self.tables else None
        self.note({}, **{VOLUMES: digest, REPLACED: replaced})

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder's lock; others wait. File systems without locks are left alone."""
        self.folder.mkdir(parents=True, exist_ok=True)
        descriptor = take_lock(self.folder / LOCK)
        try:
            yield
        finally:
            with suppress(OSError):
                (self.folder / LOCK).unlink()
            os.close(descriptor)

    def _name(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()

    def _write(self, content: dict[str, Any]) -> None:
        content = {**content, "outputs": dict(sorted(content["outputs"].items()))}
        text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
        write_atomically(self.folder / RECORD, text.encode())
        self._content = content

    def _read(self) -> dict[str, Any]:
        try:
            content = parse_json((self.folder / RECORD).read_bytes())
        except FileNotFoundError:
            return {"outputs": {}}
        except NotADirectoryError:
            raise UsageError(f"--out {self.folder}: is no folder; give another name") from None
        except (OSError, ValueError, RecursionError):
            content = None
        if not is_record(content):
            raise UsageError(f"--out {self.folder}: {RECORD} in it cannot be read; give another folder")
        if "outputs" not in content:
            content["outputs"] = _made_before(self.folder, content["sha256"])
        return dict(content)


def origin_of(record: FolderRecord, scan: Scan) -> Origin:
    """What the files of a scan are made from, for a command's record.

    Raises
    ------
    DataError
        The scan or its mask cannot be read.
    """
    assert scan.image is not None
    mask = None if scan.mask is None else digest_of(scan.mask)
    return {**record.origin, "scan": digest_of(scan.image), "mask": mask}


def _made_before(folder: Path, model: str) -> dict[str, Any]:
    """The files of a folder whose record does not name them: earlier versions wrote the model alone."""
    maps = [path for place in (folder, folder / "posteriors") for path in place.glob("*") if _was_map(path)]
    pictures = [path for path in (folder / "qc").glob("*.png") if is_picture(path) or _was_picture(path)]
    return {path.relative_to(folder).as_posix(): {"model": model} for path in (*maps, *pictures)}


def _was_map(path: Path) -> bool:
    return path.is_file() and (path.name.endswith(".mgz") or is_label_map(path))


def _was_picture(path: Path) -> bool:
    return path.is_file() and b"tEXtSoftware\0Matplotlib" in first_bytes(path, 1024)
