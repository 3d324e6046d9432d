"""Pickles read as plain data: their classes and functions are names that nothing imports, and nothing is called."""

import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO

_VALUES = frozenset(
    ("INT", "LONG", "BININT", "BININT1", "BININT2", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "STRING", "BINSTRING",
     "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES",
     "BINBYTES8", "BYTEARRAY8")
)  # fmt: skip
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_NEW: dict[str, Callable[[], Any]] = {"EMPTY_LIST": list, "EMPTY_SET": list, "EMPTY_DICT": dict, "EMPTY_TUPLE": tuple}
_OF_TOP = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_WITHOUT_EFFECT = frozenset(("PROTO", "FRAME", "STOP"))


@dataclass(frozen=True)
class Global:
    """A class or function that a pickle names, as ``package.module.name``."""

    name: str


@dataclass(eq=False)
class Placeholder:
    """An object that is not built: the name of its class or function, and the data that the pickle gives it."""

    name: str
    state: Any = None
    items: dict[str | int, Any] = field(default_factory=dict)


Build = Callable[..., Any]  # is given a call's arguments, and returns what stands for its result


def read_pickle(file: BinaryIO, builds: Mapping[str, Build], persistent: Build) -> Any:
    """Read one pickle, and leave the file after it.

    ``builds``: by a function's name, what stands for its calls. All other objects are placeholders. ``persistent`` is
    given each persistent id. Sets are lists, and entries of dicts whose keys are neither text nor integers are left
    out.

    Raises:
        Exception: of any kind, for a damaged pickle.
    """
    reader = _Reader(builds, persistent)
    for opcode, arg, _ in pickletools.genops(file):
        reader.step(opcode.name, arg)
    return reader.stack.pop()


class _Reader:
    """A stack machine for pickles. A mark puts the stack aside, as in Python's own."""

    def __init__(self, builds: Mapping[str, Build], persistent: Build):
        self.builds, self.persistent = builds, persistent
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def step(self, name: str, arg: Any) -> None:
        if name in _VALUES:
            self.stack.append(arg)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name])
        elif name in _NEW:
            self.stack.append(_NEW[name]())
        elif name in _OF_TOP:
            self.stack[-_OF_TOP[name] :] = [tuple(self.pop(_OF_TOP[name]))]
        elif name not in _WITHOUT_EFFECT:
            getattr(self, f"do_{name.lower()}")(arg)

    def pop(self, count: int) -> list[Any]:
        """Return the topmost values, which stay on the stack."""
        if len(self.stack) < count:
            raise IndexError("the stack is empty")
        return self.stack[-count:]

    def to_mark(self) -> list[Any]:
        """Return the values above the last mark, and take both off the stack."""
        values, self.stack = self.stack, self.marks.pop()
        return values

    def do_mark(self, _arg: None) -> None:
        self.marks.append(self.stack)
        self.stack = []

    def do_pop(self, _arg: None) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self.to_mark()

    def do_pop_mark(self, _arg: None) -> None:
        self.to_mark()

    def do_dup(self, _arg: None) -> None:
        self.stack.append(self.stack[-1])

    def do_put(self, arg: int) -> None:
        self.memo[arg] = self.stack[-1]

    do_binput = do_long_binput = do_put

    def do_memoize(self, _arg: None) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def do_get(self, arg: int) -> None:
        self.stack.append(self.memo[arg])

    do_binget = do_long_binget = do_get

    def do_tuple(self, _arg: None) -> None:
        values = self.to_mark()
        self.stack.append(tuple(values))

    def do_list(self, _arg: None) -> None:
        values = self.to_mark()
        self.stack.append(values)

    do_frozenset = do_list

    def do_dict(self, _arg: None) -> None:
        values = self.to_mark()
        self.stack.append({})
        self.set_items(values)

    def do_append(self, _arg: None) -> None:
        self.extend([self.stack.pop()])

    def do_appends(self, _arg: None) -> None:
        self.extend(self.to_mark())

    do_additems = do_appends

    def extend(self, values: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, list):
            target += values
        elif isinstance(target, Placeholder):
            target.items |= dict(enumerate(values, len(target.items)))
        else:
            raise TypeError("values for what is no list")

    def do_setitem(self, _arg: None) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self.set_items([key, value])

    def do_setitems(self, _arg: None) -> None:
        self.set_items(self.to_mark())

    def set_items(self, values: list[Any]) -> None:
        target = self.stack[-1]
        items = target.items if isinstance(target, Placeholder) else target
        if not isinstance(items, dict):
            raise TypeError("items for what is no dict")
        pairs = zip(values[::2], values[1::2], strict=True)
        items |= {key: value for key, value in pairs if isinstance(key, str | int)}

    def do_global(self, arg: str) -> None:
        self.stack.append(Global(arg.replace(" ", ".")))

    def do_stack_global(self, _arg: None) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self.stack.append(Global(f"{_text(module)}.{_text(name)}"))

    def do_ext1(self, arg: int) -> None:
        self.stack.append(Global(f"extension {arg}"))

    do_ext2 = do_ext4 = do_ext1

    def do_persid(self, arg: str) -> None:
        self.stack.append(self.persistent(arg))

    def do_binpersid(self, _arg: None) -> None:
        self.stack.append(self.persistent(self.stack.pop()))

    def do_reduce(self, _arg: None) -> None:
        args, function = self.stack.pop(), self.stack.pop()
        self.stack.append(self.call(function, args))

    do_newobj = do_reduce

    def do_newobj_ex(self, _arg: None) -> None:
        _keywords, args, kind = self.stack.pop(), self.stack.pop(), self.stack.pop()
        self.stack.append(self.call(kind, args))

    def do_obj(self, _arg: None) -> None:
        kind, *args = self.to_mark()
        self.stack.append(self.call(kind, tuple(args)))

    def do_inst(self, arg: str) -> None:
        args = self.to_mark()
        self.stack.append(self.call(Global(arg.replace(" ", ".")), tuple(args)))

    def call(self, function: Any, args: Any) -> Any:
        if not isinstance(function, Global | Placeholder) or not isinstance(args, tuple):
            raise TypeError("a call of what is no function")
        build = self.builds.get(function.name)
        return build(*args) if build else Placeholder(function.name)

    def do_build(self, _arg: None) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, Placeholder):
            target.state = state


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("a name that is no text")
    return value
