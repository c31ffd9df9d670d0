"""Optimisers by their formulas, in numpy, with the sensitivity of every quantity to the outer parameters θ (5).

Each is a function of one parameter φ, its gradient g, a state and options, which may all depend on θ; it returns φ and
the state after a step. `NumpyUpdate` does for all parameters what an optimiser would do from its present state.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from support.dual import Array, Dual, joined, larger, where
from torch import Tensor

__all__ = ["Array", "NumpyUpdate", "clip"]

State = dict[str, Any]
Options = Mapping[str, Any]
Step = Callable[[Dual, Dual, State, Options], tuple[Dual, State]]


def clip(g: Dual, limit: float) -> Dual:
    """g min(1, limit / (|g| + 1e-6))."""
    factor = limit / ((g * g).sum().root() + 1e-6)
    return g * factor if factor.v < 1 else g


class NumpyUpdate:
    """Starts from the optimiser's present state, taken for constants."""

    def __init__(self, optimiser: torch.optim.Optimizer) -> None:
        self._step = STEPS[type(optimiser)]
        self._parameters = optimiser.param_groups[0]["params"]
        self._states = [
            {name: _constant(name, value) for name, value in optimiser.state[p].items()} for p in self._parameters
        ]

    def __call__(self, phi: Dual, g: Dual, options: Options) -> Dual:
        """The next φ, all parameters in a row; an option may be a list with one value for each."""
        moved, start = [], 0
        for index, parameter in enumerate(self._parameters):
            part, shape = slice(start, start + parameter.numel()), tuple(parameter.shape)
            own = {name: v[index] if isinstance(v, list) and name != "params" else v for name, v in options.items()}
            sign = -1.0 if options.get("maximize") else 1.0
            found, self._states[index] = self._step(
                phi[part].reshape(*shape), sign * g[part].reshape(*shape), self._states[index], own
            )
            moved.append(found)
            start += parameter.numel()
        return joined(moved)


def _constant(name: str, value: Tensor | None) -> Any:
    if value is None or name == "step":
        return value if value is None else int(value)
    return Dual.of(value.detach().numpy().astype(np.float64))


def _kept(value: Dual | float) -> Dual:
    """A number of a state, in the precision that torch keeps it in."""
    found = Dual.of(value)
    return Dual(np.asarray(torch.tensor(found.v.tolist()).numpy(), dtype=np.float64), found.d)


def _mean(state: State, name: str, value: Dual, kept: Any) -> Dual:
    return kept * state.get(name, 0.0 * value) + (1 - kept) * value


def _decayed(phi: Dual, g: Dual, o: Options) -> tuple[Dual, Dual]:
    if o.get("decoupled_weight_decay"):
        return phi * (1 - o["lr"] * o["weight_decay"]), g
    return phi, g + o["weight_decay"] * phi


def _sgd(phi: Dual, g: Dual, s: State, o: Options) -> tuple[Dual, State]:
    mu, m = o["momentum"], s.get("momentum_buffer")
    _, g = _decayed(phi, g, o)
    m = g if m is None else mu * m + (1 - o["dampening"]) * g
    if isinstance(mu, Dual) or mu != 0:
        g = g + mu * m if o["nesterov"] else m
    return phi - o["lr"] * g, {"momentum_buffer": m}


def _rmsprop(phi: Dual, g: Dual, s: State, o: Options) -> tuple[Dual, State]:
    alpha, _, g = o["alpha"], *_decayed(phi, g, o)
    v, m = _mean(s, "square_avg", g * g, alpha), _mean(s, "grad_avg", g, alpha)
    d = g / ((v - m * m if o["centered"] else v).root() + o["eps"])
    b = o["momentum"] * s.get("momentum_buffer", 0.0) + d
    return phi - o["lr"] * b, {"square_avg": v, "grad_avg": m, "momentum_buffer": b}


def _adagrad(phi: Dual, g: Dual, s: State, o: Options) -> tuple[Dual, State]:
    taken, _, g = s.get("step", 0), *_decayed(phi, g, o)
    total = s.get("sum", o["initial_accumulator_value"]) + g * g
    rate = o["lr"] / (1 + taken * o["lr_decay"])
    return phi - rate * g / (total.root() + o["eps"]), {"step": taken + 1, "sum": total}


def _adadelta(phi: Dual, g: Dual, s: State, o: Options) -> tuple[Dual, State]:
    _, g = _decayed(phi, g, o)
    v = _mean(s, "square_avg", g * g, o["rho"])
    d = (s.get("acc_delta", 0.0 * g) + o["eps"]).root() / (v + o["eps"]).root() * g
    return phi - o["lr"] * d, {"square_avg": v, "acc_delta": _mean(s, "acc_delta", d * d, o["rho"])}


def _moments(phi: Dual, g: Dual, s: State, o: Options) -> tuple[Dual, Dual, State, Any, Any]:
    """φ and g with decay, the next state, and the moments without their bias."""
    phi, g = _decayed(phi, g, o)
    (beta1, beta2), t = o["betas"], s.get("step", 0) + 1
    m, v = _mean(s, "exp_avg", g, beta1), _mean(s, "exp_avg_sq", g * g, beta2)
    return phi, g, {**s, "step": t, "exp_avg": m, "exp_avg_sq": v}, m / (1 - beta1**t), v / (1 - beta2**t)


def _adam(phi: Dual, g: Dual, s: State, o: Options) -> tuple[Dual, State]:
    phi, _, new, m, v = _moments(phi, g, s, o)
    if o["amsgrad"]:
        new["max_exp_avg_sq"] = largest = larger(s.get("max_exp_avg_sq", 0.0), new["exp_avg_sq"])
        v = largest / (1 - o["betas"][1] ** new["step"])
    return phi - o["lr"] * m / (v.root() + o["eps"]), new


def _nadam(phi: Dual, g: Dual, s: State, o: Options) -> tuple[Dual, State]:
    phi, g, new, _, v = _moments(phi, g, s, o)
    now, following = (
        o["betas"][0] * (1 - 0.5 * 0.96 ** (t * o["momentum_decay"])) for t in (new["step"], new["step"] + 1)
    )
    new["mu_product"] = product = _kept(s.get("mu_product", 1.0) * now)
    step = (1 - now) / (1 - product) * g + following / (1 - product * following) * new["exp_avg"]
    return phi - o["lr"] * step / (v.root() + o["eps"]), new


def _radam(phi: Dual, g: Dual, s: State, o: Options) -> tuple[Dual, State]:
    phi, _, new, m, v = _moments(phi, g, s, o)
    beta2, t = o["betas"][1], new["step"]
    longest = 2 / (1 - beta2) - 1
    length = longest - 2 * t * beta2**t / (1 - beta2**t)
    if Dual.of(length).v > 5:
        unbias = (1 - beta2**t) ** 0.5
        below = (longest - 4) * (longest - 2) * length
        m = m * unbias / ((v * unbias * unbias).root() + o["eps"])
        m = m * ((length - 4) * (length - 2) * longest / below) ** 0.5
    return phi - o["lr"] * m, new


def _adamax(phi: Dual, g: Dual, s: State, o: Options) -> tuple[Dual, State]:
    _, g = _decayed(phi, g, o)
    (beta1, beta2), t = o["betas"], s.get("step", 0) + 1
    m = _mean(s, "exp_avg", g, beta1)
    u = larger(beta2 * s.get("exp_inf", Dual.of(0.0)), g.abs() + o["eps"])
    return phi - o["lr"] * m / (1 - beta1**t) / u, {"step": t, "exp_avg": m, "exp_inf": u}


def _asgd(phi: Dual, g: Dual, s: State, o: Options) -> tuple[Dual, State]:
    _, g = _decayed(phi, g, o)
    t, eta = s.get("step", 0) + 1, s.get("eta", _kept(o["lr"]))
    following = o["lr"] / (1 + o["lambd"] * o["lr"] * t) ** o["alpha"]
    return phi * (1 - o["lambd"] * eta) - eta * g, {"step": t, "eta": _kept(following)}


def _rprop(phi: Dual, g: Dual, s: State, o: Options) -> tuple[Dual, State]:
    turned = g.v * s.get("prev", 0.0 * g).v
    factor = where(turned < 0, o["etas"][0], where(turned > 0, o["etas"][1], np.ones_like(turned)))
    size = s.get("step_size", o["lr"] * np.ones_like(turned)) * factor
    least, most = o["step_sizes"]
    size = -larger(-larger(size, least), -most)
    g = Dual.of(np.where(turned < 0, 0.0, g.v))
    return phi - np.sign(g.v) * size, {"prev": g, "step_size": size}


def _adafactor(phi: Dual, g: Dual, s: State, o: Options) -> tuple[Dual, State]:
    t, size, (least, floor) = s.get("step", 0) + 1, phi.v.size**0.5, o["eps"]
    least = np.finfo(np.float64).eps if least is None else least
    kept, new = 1 - float(t) ** o["beta2_decay"], {"step": t}
    rate = -larger(-Dual.of(o["lr"]), -1 / t**0.5) * larger(floor, (phi * phi).sum().root() / size)
    phi, _ = _decayed(phi, g, {**o, "decoupled_weight_decay": True})
    if phi.v.ndim > 1:
        for name, axis in (("row_var", 1), ("col_var", 0)):
            new[name] = _mean(s, name, (g * g).sum(axis) / g.v.shape[axis], kept)
        v = new["row_var"] @ new["col_var"] / larger(new["row_var"].sum(0) / g.v.shape[0], least)
    else:
        v = new["variance"] = _mean(s, "variance", g * g, kept)
    u = g / larger(v, least**2).root()
    return phi - rate * u / larger(1.0, (u * u).sum().root() / (size * o["d"])), new


def _muon(phi: Dual, g: Dual, s: State, o: Options) -> tuple[Dual, State]:
    m = _mean(s, "momentum_buffer", g, o["momentum"])
    x = o["momentum"] * m + (1 - o["momentum"]) * g if o["nesterov"] else m
    (a, b, c), (rows, columns) = o["ns_coefficients"], g.v.shape
    x = x / (x * x).sum().root()
    for _ in range(o["ns_steps"]):
        gram = x @ x.T
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    phi, _ = _decayed(phi, g, {**o, "decoupled_weight_decay": True})
    return phi - o["lr"] * max(1, rows / columns) ** 0.5 * x, {"momentum_buffer": m}


STEPS: dict[type, Step] = {
    torch.optim.SGD: _sgd,
    torch.optim.RMSprop: _rmsprop,
    torch.optim.Adagrad: _adagrad,
    torch.optim.Adadelta: _adadelta,
    torch.optim.Adam: _adam,
    torch.optim.AdamW: _adam,
    torch.optim.NAdam: _nadam,
    torch.optim.RAdam: _radam,
    torch.optim.Adamax: _adamax,
    torch.optim.ASGD: _asgd,
    torch.optim.Rprop: _rprop,
    torch.optim.Adafactor: _adafactor,
    torch.optim.Muon: _muon,
}
