"""Sealed zip files (of torch and of NumPy): a changed bit in one does not go unnoticed.

The checksums inside a zip file leave parts of it uncovered, of which a changed bit may give other numbers without a
word, so the comment of a sealed one holds the SHA-256 of all that stands before it. Any program reads a sealed file.
Files written before there were seals are recognised: nothing follows their end record, which is never so in a sealed
file, even with its seal damaged or cut off.
"""

import hashlib
import io
import zipfile
from pathlib import Path

from metasynth.files import first_line

_SEAL = b"metasynth sha256 "
_HEX = 64
_END, _END_LENGTH = b"PK\x05\x06", 22  # the last record of a zip file, when no comment follows it


class DamagedFileError(ValueError):
    """A file is not what was written; the message says how that is known."""


def seal(file: io.BytesIO) -> memoryview:
    """Seal the zip file that a buffer holds, and return all of it."""
    with file.getbuffer() as written:
        written[-2:] = (len(_SEAL) + _HEX).to_bytes(2, "little")  # the length of the comment, which was 0
    file.seek(0, io.SEEK_END)
    file.write(_SEAL)
    with file.getbuffer() as written:
        digest = hashlib.sha256(written).hexdigest()
    file.write(digest.encode())
    return file.getbuffer()


def read_zip(path: Path, *, sealed: bool = False) -> io.BytesIO:
    """The bytes of a zip file that is whole: by its seal or, where it was written without, by its own checksums.

    Parameters
    ----------
    path : Path
        The file.
    sealed : bool
        Refuse a file without a seal.

    Raises
    ------
    OSError
        The file cannot be read.
    zipfile.BadZipFile
        It is no zip file, or cut short.
    DamagedFileError
        It is damaged, or has no seal and should.
    """
    data = path.read_bytes()
    signed, digest = data[:-_HEX], data[-_HEX:]
    if signed.endswith(_SEAL):
        if hashlib.sha256(signed).hexdigest().encode() != digest:
            raise DamagedFileError(_broken_entry(data) or "its SHA-256 is not the one it carries")
    elif data[-_END_LENGTH:].startswith(_END) and data.endswith(b"\0\0"):
        if sealed:
            raise DamagedFileError("it does not carry its SHA-256, so another program wrote it")
        broken = _broken_entry(data)
        if broken:
            raise DamagedFileError(broken)
    else:
        raise zipfile.BadZipFile("it does not end as a zip file")
    return io.BytesIO(data)


def _broken_entry(data: bytes) -> str | None:
    """Where the checksums inside a zip file find it damaged."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            broken = archive.testzip()
    except Exception as error:  # of damaged bytes any may come: of zlib, lzma, struct, ...
        return first_line(error)
    return f"at {broken}" if broken else None
