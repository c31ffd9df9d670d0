"""Numbers with their sensitivity to the outer parameters θ (5): forward differentiation, in numpy."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
N = 5


@dataclass(frozen=True, eq=False)
class Dual:
    """A value of any shape with its derivative, of that shape and N more; they broadcast as arrays do."""

    v: Array
    d: Array

    __array_priority__ = 1.0

    @classmethod
    def of(cls, value: "Dual | Array | float") -> "Dual":
        """A constant, unless it is one already."""
        if isinstance(value, Dual):
            return value
        found = np.asarray(value, dtype=np.float64)
        return cls(found, np.zeros((*found.shape, N)))

    def map(self, value: Array, slope: Array) -> "Dual":
        """A function of it, by its value and derivative."""
        return Dual(value, self.d * slope[..., None])

    def __add__(self, other: "Dual | Array | float") -> "Dual":
        b = Dual.of(other)
        return Dual(self.v + b.v, self.d + b.d)

    def __mul__(self, other: "Dual | Array | float") -> "Dual":
        b = Dual.of(other)
        return Dual(self.v * b.v, self.d * b.v[..., None] + b.d * self.v[..., None])

    def __matmul__(self, other: "Dual") -> "Dual":
        return Dual(
            self.v @ other.v, np.einsum("ijp,jk->ikp", self.d, other.v) + np.einsum("ij,jkp->ikp", self.v, other.d)
        )

    def __pow__(self, power: "Dual | float") -> "Dual":
        if isinstance(power, Dual):
            return (power * self.log()).exp()
        return self.map(self.v**power, power * self.v ** (power - 1.0))

    def __neg__(self) -> "Dual":
        return self * -1.0

    def __sub__(self, other: "Dual | Array | float") -> "Dual":
        return self + -Dual.of(other)

    def __rsub__(self, other: "Array | float") -> "Dual":
        return -self + other

    def __truediv__(self, other: "Dual | Array | float") -> "Dual":
        return self * Dual.of(other) ** -1.0

    def __rtruediv__(self, other: "Array | float") -> "Dual":
        return self**-1.0 * other

    def __rpow__(self, base: float) -> "Dual":
        return (self * np.log(base)).exp()

    __radd__, __rmul__ = __add__, __mul__

    def __getitem__(self, which: slice) -> "Dual":
        return Dual(self.v[which], self.d[which])

    @property
    def T(self) -> "Dual":
        """Of a matrix."""
        return Dual(self.v.T, self.d.transpose(1, 0, 2))

    def exp(self) -> "Dual":
        return self.map(np.exp(self.v), np.exp(self.v))

    def log(self) -> "Dual":
        return self.map(np.log(self.v), 1 / self.v)

    def abs(self) -> "Dual":
        return self.map(np.abs(self.v), np.sign(self.v))

    def root(self) -> "Dual":
        """Square root, with a derivative of zero at zero."""
        return self.map(np.sqrt(self.v), np.where(self.v > 0, 0.5 / np.sqrt(np.where(self.v > 0, self.v, 1.0)), 0.0))

    def sum(self, axis: int | None = None) -> "Dual":
        """Over one axis, which stays, or all."""
        if axis is None:
            return Dual(self.v.sum(), self.d.reshape(-1, N).sum(0))
        return Dual(self.v.sum(axis, keepdims=True), self.d.sum(axis, keepdims=True))

    def reshape(self, *shape: int) -> "Dual":
        return Dual(self.v.reshape(shape), self.d.reshape(*shape, N))


def where(condition: Array, a: "Dual | Array | float", b: "Dual | Array | float") -> Dual:
    a, b = Dual.of(a), Dual.of(b)
    return Dual(np.where(condition, a.v, b.v), np.where(condition[..., None], a.d, b.d))


def larger(a: "Dual | Array | float", b: "Dual | Array | float") -> Dual:
    a, b = Dual.of(a), Dual.of(b)
    return where(np.asarray(a.v >= b.v), a, b)


def joined(parts: list[Dual]) -> Dual:
    """All entries in a row."""
    return Dual(np.concatenate([p.v.ravel() for p in parts]), np.concatenate([p.d.reshape(-1, N) for p in parts]))
