"""Lines of code that a user writes: of a function, and of what it names in its own module."""

import ast
import inspect
import io
import textwrap
import tokenize
from collections.abc import Callable
from types import FunctionType

_NO_CODE = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}


def code_lines(source: str) -> int:
    """Lines that hold something other than white space, comments and docstrings."""
    source = textwrap.dedent(source)
    told: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node) is not None:
            told |= set(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    found: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in _NO_CODE:
            found |= set(range(token.start[0], token.end[0] + 1))
    return len(found - told)


def user_lines(function: Callable[..., object]) -> int:
    """Code lines of a function and, each once, of the functions and classes of its module that it comes to name."""
    module = inspect.getmodule(function)
    waiting, counted = [function], {}
    while waiting:
        each = waiting.pop()
        if each in counted:
            continue
        source = inspect.getsource(each)
        counted[each] = code_lines(source)
        names = {node.id for node in ast.walk(ast.parse(textwrap.dedent(source))) if isinstance(node, ast.Name)}
        there = (getattr(module, name, None) for name in names)
        waiting += [value for value in there if isinstance(value, FunctionType | type) and _is_of(value, module)]
    return sum(counted.values())


def _is_of(value: FunctionType | type, module: object) -> bool:
    return value.__module__ == getattr(module, "__name__", None)
