"""The tree drawn in schemas/errors.py is the tree of its classes."""

import inspect
import re

from schemas import errors


def test_the_drawn_error_tree_equals_the_classes() -> None:
    drawn: list[tuple[str, int]] = []
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"(\s*)[*.-] (\w+)", line)
        if found:
            drawn.append((found[2], len(found[1]) // 2))
    classes = [
        (name, cls)
        for name, cls in vars(errors).items()
        if inspect.isclass(cls) and issubclass(cls, errors.SkutrendError)
    ]
    depth = {name: len(cls.__mro__) - len(errors.SkutrendError.__mro__) for name, cls in classes}
    assert dict(drawn) == depth
    parents = {name: cls.__base__.__name__ for name, cls in classes if cls.__base__ is not None}
    for position, (name, level) in enumerate(drawn[1:], start=1):
        above = [other for other, other_level in drawn[:position] if other_level == level - 1]
        assert parents[name] == above[-1]


def test_codes_of_rejections_are_stable_and_distinct() -> None:
    codes = {cls.__name__: cls.code for cls in errors.Rejected.__subclasses__()}
    assert codes == {"Malformed": "malformed", "Misplaced": "wrong_partition", "Mistimed": "implausible_time"}
