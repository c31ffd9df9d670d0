"""How large steps may be: learning rates, and whether a step left what is learned within reach of further ones.

A constrained value is read from an unconstrained one through a bijection (`metasynth.augment.bijections`). Steps that
are far too large take the unconstrained one to where the bijection is flat in floating point: the value is then as good
as an end of its range, such as a σ of 0, and its gradient is nothing that could bring it back. Steps of a sensible size
move by less than `LARGEST_MOVE`, and reach an end only where the losses ask for it again and again.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor, nn

from metasynth.augment.bijections import Bijection
from metasynth.running.settings.bounds import require_positive

LARGEST_RATE = 1000.0  # of weights
LARGEST_UNCONSTRAINED = 5.0  # of unconstrained values: six steps cross all of their range
LARGEST_MOVE = 0.25  # of an unconstrained value: five times the default rate
_PREFIX = "raw_"

Constrained = Mapping[str, tuple[Bijection, Tensor]]


def constrained_in(module: nn.Module) -> dict[str, tuple[Bijection, Tensor]]:
    """The unconstrained parameters of a module and those in it, by the names of their values, with their bijections.

    They are those called ``raw_NAME`` of modules with a ``bijection``.
    """
    return {
        f"{place}.{name}".removeprefix(".").replace(_PREFIX, ""): (part.bijection, parameter)
        for place, part in module.named_modules()
        if isinstance(getattr(part, "bijection", None), Bijection)
        for name, parameter in part.named_parameters(recurse=False)
        if name.startswith(_PREFIX)
    }


@contextmanager
def within_reach(constrained: Constrained, rate: str) -> Iterator[None]:
    """Take a step within, after which no value may have been thrown to an end of its range.

    Parameters
    ----------
    constrained : mapping
        What `constrained_in` gave: unconstrained tensors of any shape, changed in place.
    rate : str
        The setting that decides how large steps are, for the message.

    Raises
    ------
    ValueError
        Naming the value, where the step took it and the setting. The step stands.
    """
    before = {name: raw.detach().clone() for name, (_, raw) in constrained.items()}
    yield
    for name, (bijection, raw) in constrained.items():
        lost = (raw.detach() - before[name]).abs() > LARGEST_MOVE
        if lost.any():
            lost &= bijection.is_flat(raw) & ~bijection.is_flat(before[name])
        if lost.any():
            first = [bijection.forward(value)[lost].flatten()[0].item() for value in (before[name], raw.detach())]
            raise ValueError(
                f"an outer step took {name} from {first[0]:.3g} to {first[1]:.3g}, an end of its range, from where no "
                f"gradient leads back; expected steps of less than {LARGEST_MOVE:g} (unconstrained): lower {rate}"
            )


def require_rate(most: float = LARGEST_RATE, **rates: float) -> None:
    """Refuse a learning rate of Adam that is not above 0, or so large that no training can use it.

    Adam moves every parameter by about its rate a step. Weights are of order 1; unconstrained values have all of their
    range within 16 of 0, where their bijections are flat in single precision.

    Raises
    ------
    ValueError
        By name.
    """
    require_positive(**rates)
    for name, rate in rates.items():
        if rate > most:
            raise ValueError(f"{name} must be at most {most:g}, got {rate}")
