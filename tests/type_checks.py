"""Types and shapes are checked at the first calls of a function in each test, and less and less often from there on.

A test that plays thousands of steps would else spend three quarters of its time on checking the same calls again.
"""

import functools
import inspect

import jaxtyping

FIRST_CALLS = 4
"""So many calls of a function are checked in each test, and after them those whose number is a power of two."""

_jaxtyped = jaxtyping.jaxtyped
_test = [0]
_made: dict = {}
"""How often functions within functions were made in this test, by their code: anew at each call of the outer one."""


def begin_test():
    """Every function counts its calls from zero."""
    _test[0] += 1
    _made.clear()


def jaxtyped(fn=None, *, typechecker):
    """What jaxtyping's import hook decorates everything with; the checked function is made when it is first called."""
    if fn is None:
        return functools.partial(jaxtyped, typechecker=typechecker)
    if isinstance(fn, (classmethod, staticmethod)):
        return type(fn)(jaxtyped(fn.__func__, typechecker=typechecker))
    if isinstance(fn, property):
        return property(*(part and jaxtyped(part, typechecker=typechecker) for part in (fn.fget, fn.fset, fn.fdel)))
    if inspect.isclass(fn):
        return _checked_class(fn, typechecker)
    if "<locals>" in fn.__qualname__:
        _made[fn.__code__] = made = _made.get(fn.__code__, 0) + 1
        if made > FIRST_CALLS:
            return fn
    return _at_first(fn, functools.cache(lambda: _jaxtyped(fn, typechecker=typechecker)))


def _checked_class(cls, typechecker):
    """A dataclass's values are checked when one is made."""
    bare = cls.__init__
    if not hasattr(bare, "checked_at_first"):
        _jaxtyped(cls, typechecker=typechecker)
        if cls.__init__ is not bare:
            checked = cls.__init__
            cls.__init__ = _at_first(bare, lambda: checked)
    return cls


def _at_first(fn, checked):
    """`fn`, and `checked()` in its place at the calls that are checked."""
    test, calls = 0, 0

    @functools.wraps(fn)
    def called(*args, **kwargs):
        nonlocal test, calls
        if test != _test[0]:
            test, calls = _test[0], 0
        calls += 1
        if calls <= FIRST_CALLS or calls & (calls - 1) == 0:
            return checked()(*args, **kwargs)
        return fn(*args, **kwargs)

    called.checked_at_first = True
    return called


jaxtyping.jaxtyped = jaxtyped
