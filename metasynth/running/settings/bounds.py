"""Bounds of settings: a ValueError that names the setting, what is allowed and what came."""

from collections.abc import Collection


def require_at_least(bound: float, **values: float) -> None:
    """ValueError, by name, for a value below ``bound``."""
    for name, value in values.items():
        if value < bound:
            raise ValueError(f"{name} must be at least {bound}, got {value}")


def require_positive(**values: float) -> None:
    """ValueError, by name, for a value that is not above 0."""
    for name, value in values.items():
        if not value > 0:
            raise ValueError(f"{name} must be positive, got {value}")


def require_distinct(what: str, **lists: Collection[object]) -> None:
    """ValueError, by name, for a list that is empty or has a value twice; ``what``: 'at least one'."""
    for name, values in lists.items():
        if not values or len(set(values)) != len(values):
            raise ValueError(f"{name} must list {what}, each once, got {values}")
