import json
from dataclasses import dataclass, field, fields, replace
from typing import Literal, Self

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metasynth.errors import UsageError
from metasynth.running.settings.config import apply_overrides, from_dict, nearest, to_dict
from metasynth.running.settings.values import MOST
from metasynth.text import shown


@dataclass(frozen=True)
class Level:
    """A value with its own notation: 'LOW' or 'LOW:HIGH'."""

    low: float
    high: float | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        low, _, high = text.partition(":")
        try:
            return cls(float(low), float(high) if high else None)
        except ValueError:
            raise ValueError(f"a level is LOW or LOW:HIGH, got {text!r}") from None

    @classmethod
    def from_json(cls, value: object) -> Self:
        if isinstance(value, list):
            return cls(*value)
        if isinstance(value, float):
            return cls(value)
        raise ValueError("a level is a number or a pair")

    def to_json(self) -> float | list[float]:
        return self.low if self.high is None else [self.low, self.high]


@dataclass(frozen=True)
class Optimizer:
    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    kind: Literal["adam", "sgd"] = "adam"

    def __post_init__(self) -> None:
        if self.lr <= 0:
            raise ValueError(f"lr must be positive, got {self.lr}")


@dataclass(frozen=True)
class Settings:
    steps: int = 10
    name: str = "x"
    gap: bool = True
    clip: float | None = None
    widths: tuple[int, ...] = (8, 16)
    sigma: tuple[Level, ...] = (Level(0.1),)
    inner: Optimizer = field(default_factory=Optimizer)
    outer: Optimizer = field(default_factory=Optimizer)

    def __post_init__(self) -> None:
        if self.clip is not None and self.clip > self.steps:
            raise ValueError(f"clip must be at most steps, got {self.clip} and {self.steps}")


numbers = st.floats(allow_nan=False, allow_infinity=False)
positive = st.floats(min_value=1e-9, max_value=1e9)
optimizers = st.builds(Optimizer, lr=positive, betas=st.tuples(numbers, numbers), kind=st.sampled_from(["adam", "sgd"]))
levels = st.builds(Level, numbers, st.none() | numbers)
settings = st.builds(
    Settings,
    steps=st.integers(1, 10**6),
    name=st.text(),
    gap=st.booleans(),
    clip=st.none() | st.floats(max_value=1, allow_infinity=False, allow_nan=False),
    widths=st.lists(st.integers(-MOST, MOST), max_size=4).map(tuple),
    sigma=st.lists(levels, max_size=3).map(tuple),
    inner=optimizers,
    outer=optimizers,
)


@given(settings)
def test_json_round_trip(config):
    assert from_dict(Settings, json.loads(json.dumps(to_dict(config), allow_nan=False))) == config


@given(settings)
def test_any_settings_can_be_reached_by_overrides(config):
    def text(value):
        if isinstance(value, tuple):
            return ",".join(map(text, value))
        if isinstance(value, Level):
            return f"{value.low!r}" if value.high is None else f"{value.low!r}:{value.high!r}"
        return str(value) if isinstance(value, str) else repr(value)

    plain = [f for f in fields(Settings) if f.name not in ("inner", "outer", "name")]
    overrides = [f"{f.name}={text(getattr(config, f.name))}" for f in plain]
    for group in ("inner", "outer"):
        overrides += [f"{group}.{f.name}={text(getattr(getattr(config, group), f.name))}" for f in fields(Optimizer)]
    assert apply_overrides(Settings(), overrides) == replace(config, name="x")


@pytest.mark.parametrize(
    ("override", "change"),
    [
        ("steps=1_000", {"steps": 1000}),
        (" steps = 3 ", {"steps": 3}),
        ("name=a=b,c", {"name": "a=b,c"}),
        ("gap=no", {"gap": False}),
        ("gap=True", {"gap": True}),
        ("clip=none", {"clip": None}),
        ("clip=2e-1", {"clip": 0.2}),
        ("widths=", {"widths": ()}),
        ("widths=4, 8", {"widths": (4, 8)}),
        ("sigma=0.05", {"sigma": (Level(0.05),)}),
        ("sigma=0,0.05,0.025:0.2", {"sigma": (Level(0.0), Level(0.05), Level(0.025, 0.2))}),
        ("inner.betas=.5,.9", {"inner": Optimizer(betas=(0.5, 0.9))}),
        ("outer.kind=sgd", {"outer": Optimizer(kind="sgd")}),
    ],
)
def test_override(override, change):
    assert apply_overrides(Settings(), [override]) == replace(Settings(), **change)


def test_later_overrides_win_and_are_applied_together():
    start = Settings(steps=5)
    assert apply_overrides(start, ["clip=7", "steps=6", "steps=8"]) == Settings(steps=8, clip=7.0)
    assert start == Settings(steps=5)
    assert apply_overrides(start, []) == start


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("setps=3", "unknown setting 'setps': did you mean 'steps'?"),
        ("inner.rl=3", "unknown setting 'inner.rl': did you mean 'inner.lr'?"),
        ("lr=3", "unknown setting 'lr': did you mean 'inner.lr'?"),
        ("zzz=3", "unknown setting 'zzz': choose from clip, gap, inner.betas"),
        ("steps.deep=3", "unknown setting 'steps.deep'"),
        ("inner=3", "setting 'inner' is a group: set one of inner.lr, inner.betas, inner.kind"),
        ("steps", "--set steps: expected KEY=VALUE, for example --set steps=..."),
        ("=3", "--set =3: expected KEY=VALUE"),
        ("steps=1.5", "steps: expected a whole number, got '1.5'"),
        ("steps=", "steps: expected a whole number, got ''"),
        ("clip=much", "clip: expected a finite number or none, got 'much'"),
        ("clip=nan", "clip: expected a finite number or none, got 'nan'"),
        ("inner.lr=inf", "inner.lr: expected a finite number, got 'inf'"),
        ("gap=maybe", "gap: expected true or false, got 'maybe'"),
        ("outer.kind=adan", "outer.kind: expected one of adam, sgd, got 'adan'"),
        ("widths=1,,2", "widths: expected a comma-separated list, each a whole number, got '1,,2'"),
        ("inner.betas=.9", "inner.betas: expected 2 comma-separated values"),
        ("sigma=high", "sigma: got 'high': a level is LOW or LOW:HIGH, got 'high'"),
        ("inner.lr=-1", "--set inner.lr: lr must be positive, got -1.0"),
        ("clip=11", "--set clip: clip must be at most steps, got 11.0 and 10"),
    ],
)
def test_bad_override(override, message):
    with pytest.raises(UsageError) as caught:
        apply_overrides(Settings(), [override])
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"setps": 1}, "unknown setting 'setps': did you mean 'steps'?"),
        ({"steps": 1.0}, "steps: expected a whole number, got 1.0"),
        ({"steps": True}, "steps: expected a whole number, got True"),
        ({"clip": float("nan")}, "clip: expected a finite number or none, got nan"),
        ({"gap": 1}, "gap: expected true or false, got 1"),
        ({"widths": "8"}, "widths: expected a list, each a whole number, got '8'"),
        ({"sigma": ["x"]}, "sigma: got ['x']: a level is a number or a pair"),
        ({"inner": 3}, "inner: expected an object of settings, got 3"),
        ({"inner": {"lr": 1.0}}, "missing settings inner.betas, inner.kind"),
        (
            {"inner": {"lr": 0.0, "betas": [0.9, 0.9], "kind": "sgd"}},
            "inner (lr, betas, kind): lr must be positive",
        ),
        (
            {"outer": {"lr": 1.0, "betas": [0.9], "kind": "sgd"}},
            "outer.betas: expected 2 values (a finite number, a finite number), got [0.9]",
        ),
        (
            {"outer": {"lr": 1.0, "betas": [0.9, 0.9], "kind": "x"}},
            "outer.kind: expected one of adam, sgd, got 'x'",
        ),
    ],
)
def test_bad_json(change, message):
    with pytest.raises(UsageError) as caught:
        from_dict(Settings, {**to_dict(Settings()), **change})
    assert str(caught.value).startswith(message)


def test_a_missing_setting_is_named():
    values = to_dict(Settings())
    del values["gap"]
    with pytest.raises(UsageError, match=r"^missing setting gap$"):
        from_dict(Settings, values)


def test_whole_json_numbers_are_floats_where_floats_are_wanted():
    values = {**to_dict(Settings()), "clip": 3}
    config = from_dict(Settings, values)
    assert config.clip == 3.0
    assert isinstance(config.clip, float)


def test_annotations_without_a_rule_are_programming_errors():
    @dataclass(frozen=True)
    class Odd:
        table: dict[str, int] = field(default_factory=dict)

    with pytest.raises(TypeError, match="cannot be read from text"):
        apply_overrides(Odd(), ["table=1"])
    with pytest.raises(TypeError, match="a configuration cannot hold a dict"):
        to_dict(Odd())
    with pytest.raises(TypeError, match="must be a dataclass instance"):
        to_dict({"a": 1})


def test_nearest_names_one_or_all():
    assert nearest("nosie", ["noise", "bias"]) == "did you mean 'noise'?"
    assert nearest("x", ["noise", "bias"]) == "choose from bias, noise"
    assert nearest("x", []) == "there is none to choose from"


@dataclass(frozen=True)
class Numbers:
    steps: int = 1
    most: int | bool = False
    least: int | None = None
    widths: tuple[int, ...] = ()
    rate: float = 1.0


RANGE = "must be a whole number from -2147483647 to 2147483647"


@pytest.mark.parametrize("key", ["steps", "most", "least", "widths"])
@pytest.mark.parametrize("number", [2**31, -(2**31), 10**11, 10**400])
def test_whole_numbers_beyond_all_sense_are_refused(key, number):
    text = str(number)
    told = shown(text)
    with pytest.raises(UsageError) as error:
        apply_overrides(Numbers(), [f"{key}={text}"])
    assert str(error.value) == f"{key}: got {told}: {RANGE}"
    value = [number] if key == "widths" else number
    with pytest.raises(UsageError, match=RANGE) as error:
        from_dict(Numbers, {**to_dict(Numbers()), key: value})
    assert len(str(error.value)) < 200


def test_whole_numbers_up_to_the_bound_are_taken():
    assert apply_overrides(Numbers(), ["steps=2147483647", "widths=-2147483647"]).widths == (-(2**31 - 1),)


@pytest.mark.parametrize("text", ["1e400", "-1e400", "nan", "inf", "9" * 5000])
def test_numbers_that_are_not_finite_are_refused(text):
    with pytest.raises(UsageError, match=r"^rate: expected a finite number, got '.{1,60}") as error:
        apply_overrides(Numbers(), [f"rate={text}"])
    assert len(str(error.value)) < 130
    with pytest.raises(UsageError, match="rate: expected a finite number, got "):
        from_dict(Numbers, {**to_dict(Numbers()), "rate": 10**400})
