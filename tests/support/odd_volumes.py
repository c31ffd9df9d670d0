"""Files of volumes with arbitrary headers, types, scalings, affines and units, whole, cut and with bytes flipped."""

import gzip
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from hypothesis import strategies as st

KINDS = {"nifti1": nib.Nifti1Header, "nifti2": nib.Nifti2Header}
TYPES = (2, 4, 8, 16, 64, 256, 512, 768, 1024, 1280, 2, 4, 8, 16, 64, 1536, 32, 128)  # the last are no single numbers
MGH_TYPES = (0, 1, 3, 4)
STRANGE = (0.0, -1.0, 1e-30, 1e30, 3e38, float("nan"), float("inf"), float("-inf"))


@dataclass(frozen=True)
class OddFile:
    """The content of a file, and of the other one of a pair."""

    ending: str
    content: bytes
    other: bytes | None = None

    def write(self, folder: Path, name: str) -> Path:
        """Write it; the path to name to a command."""
        path = folder / f"{name}{self.ending}"
        path.write_bytes(self.content)
        if self.other is not None:
            path.with_name(path.name.replace(".hdr", ".img")).write_bytes(self.other)
        return path


def numbers(*usual: float):
    """Mostly what is usual, else anything that a header can hold."""
    strange = st.one_of(st.sampled_from(STRANGE), st.floats(width=32))
    return st.integers(0, 9).flatmap(lambda draw: st.sampled_from(usual) if draw else strange)


def seldom(one):
    """One of something, or mostly none."""
    return st.integers(0, 5).flatmap(lambda draw: st.just([]) if draw else st.lists(one, min_size=1, max_size=1))


@st.composite
def affines(draw):
    """(3, 4): of a scan, turned or sheared, of other units, or with entries that can be anything."""
    sizes = draw(st.lists(st.sampled_from((1.0, 1.5, 0.05, 20.0)), min_size=3, max_size=3))
    matrix = np.diag(sizes)[list(draw(st.permutations(range(3))))] * draw(st.sampled_from((1, 1, 1, 1000, 0.001, 1e30)))
    turn = draw(st.sampled_from((0.0, 0.0, 0.3, np.pi / 4, np.pi / 2)))
    matrix[:2] = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]] @ matrix[:2]
    matrix = np.hstack([matrix, [[-10.0], [5.0], [draw(st.sampled_from((-20.0, -20.0, 1e6, 1e30)))]]])
    for _ in range(draw(st.sampled_from((0, 0, 0, 0, 1, 2)))):
        matrix[draw(st.integers(0, 2)), draw(st.integers(0, 3))] = draw(numbers(0.0, 1.0, -1.0))
    return matrix


@st.composite
def values(draw, shape):
    """Numbers for the voxels: blank, a few labels, noise, or a brain-like box in a background."""
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    kind = draw(st.sampled_from(("blank", "labels", "labels", "labels", "noise", "box", "box", "strange")))
    if kind == "blank":
        return np.full(shape, draw(numbers(0.0, 1.0, 7.0)))
    if kind == "labels":
        return rng.choice([0, 2, 3, 41, 42, 4, 10, 507], shape)
    found = rng.normal(100, 30, shape)
    if kind == "box":
        inside = np.zeros(shape, bool)
        inside[tuple(slice(n // 4, n - n // 4) for n in shape[:3])] = True
        found[~inside] = draw(numbers(0.0))
    if kind == "strange":
        found[rng.random(shape) < 0.1] = draw(numbers(0.0))
    return found


def _set(header, name, value):
    with np.errstate(all="ignore"):
        header[name] = value


@st.composite
def nifti_headers(draw, kind):
    made = KINDS[kind](endianness=draw(st.sampled_from("<>")))
    shape = tuple(draw(st.lists(st.sampled_from((1, 2, 5, 8, 9, 12)), min_size=3, max_size=3)))
    shape += draw(st.sampled_from(((), (), (), (), (1,), (1, 1), (2,))))
    code = draw(st.sampled_from(TYPES))
    made["datatype"], made["bitpix"] = code, nib.nifti1.data_type_codes.dtype[code].itemsize * 8
    made["dim"] = np.pad([len(shape), *shape], (0, 7 - len(shape)), constant_values=1)
    made["pixdim"][1:4] = 1
    made["vox_offset"] = made.single_vox_offset
    made["xyzt_units"] = draw(st.sampled_from((0, 1, 2, 3, 2, 10, 5, 255 if kind == "nifti1" else 7)))
    made["sform_code"] = draw(st.sampled_from((1, 1, 0, 4)))
    made["qform_code"] = draw(st.sampled_from((0, 1)))
    for row, name in zip(draw(affines()), ("srow_x", "srow_y", "srow_z"), strict=True):
        _set(made, name, row)
    for name in ("quatern_b", "quatern_c", "quatern_d"):
        _set(made, name, draw(numbers(0.0)))
    _set(made, "scl_slope", draw(numbers(1.0, 0.0, 0.01)))
    _set(made, "scl_inter", draw(numbers(0.0, 3.0)))
    for name in draw(seldom(st.sampled_from(("vox_offset", "cal_max", "toffset", "slice_duration")))):
        with np.errstate(all="ignore"):
            made[name] = np.array(draw(numbers(0.0))).astype(made[name].dtype)
    for at in draw(seldom(st.integers(0, 7))):
        made["dim"][at] = draw(st.sampled_from((0, -1, 1, 3, 32767)))
    for at in draw(seldom(st.integers(0, 7))):
        _set(made["pixdim"], at, draw(numbers(1.0, -1.0)))
    return made, shape


@st.composite
def stored(draw, shape, dtype):
    """The bytes of numbers in a type."""
    with np.errstate(all="ignore"):
        data = np.asarray(draw(values(shape)))
        if dtype.fields:
            return np.zeros(shape, dtype).tobytes()
        if dtype.kind in "iu":
            data = np.nan_to_num(data, nan=0.0, posinf=100.0, neginf=0.0).clip(-100, 2**31)
        return data.astype(dtype).tobytes(order="F")


@st.composite
def damage(draw, content):
    """The content, mostly as it is, else cut or with bytes flipped."""
    how = draw(st.sampled_from(("none",) * 8 + ("cut", "flip", "flip")))
    if how == "cut":
        return content[: draw(st.integers(0, len(content)))]
    changed = bytearray(content)
    if how == "flip":
        for _ in range(draw(st.integers(1, 4))):
            # Headers matter most.
            at = draw(st.one_of(st.integers(0, min(len(content), 600) - 1), st.integers(0, len(content) - 1)))
            changed[at] ^= draw(st.integers(1, 255))
    return bytes(changed)


@st.composite
def packed(draw, content):
    """The content damaged, compressed or not, and damaged again."""
    content = draw(damage(content))
    return draw(damage(gzip.compress(content, 1, mtime=0)))


@st.composite
def nifti_files(draw):
    """NIfTI-1 and NIfTI-2, plain, compressed, and as pairs."""
    header, shape = draw(nifti_headers(draw(st.sampled_from(sorted(KINDS)))))
    data = draw(stored(shape, header.get_data_dtype()))
    ending = draw(st.sampled_from((".nii", ".nii.gz", ".hdr")))
    if ending == ".hdr":
        header["magic"], header["vox_offset"] = header.pair_magic, 0
        return OddFile(ending, draw(damage(header.binaryblock)), draw(damage(data)))
    content = header.binaryblock.ljust(header.single_vox_offset, b"\0") + data
    return OddFile(ending, draw(packed(content) if ending == ".nii.gz" else damage(content)))


@st.composite
def mgh_files(draw):
    """MGH files, plain and compressed."""
    header = nib.freesurfer.mghformat.MGHHeader()
    shape = tuple(draw(st.lists(st.sampled_from((1, 2, 5, 9)), min_size=3, max_size=3)))
    header["type"] = draw(st.sampled_from((*MGH_TYPES, *MGH_TYPES, 2)))
    header["dims"] = (*shape, draw(st.sampled_from((1, 1, 2))))
    header["goodRASFlag"] = draw(st.sampled_from((1, 1, 0)))
    matrix = draw(affines())
    sizes = np.linalg.norm(matrix[:, :3], axis=0)
    _set(header, "delta", [draw(numbers(float(size))) for size in sizes])
    with np.errstate(all="ignore"):
        _set(header, "Mdc", (matrix[:, :3] / sizes).T)
    _set(header, "Pxyz_c", matrix[:, 3])
    dtype = np.dtype({0: ">u1", 1: ">i4", 3: ">f4", 4: ">i2"}.get(int(header["type"]), ">i8"))
    data = draw(stored((*shape, int(header["dims"][3])), dtype))
    ending = draw(st.sampled_from((".mgh", ".mgz")))
    content = header.binaryblock[:90].ljust(284, b"\0") + data + header.binaryblock[90:]
    return OddFile(ending, draw(packed(content) if ending == ".mgz" else damage(content)))


odd_files = st.one_of(nifti_files(), nifti_files(), mgh_files())
