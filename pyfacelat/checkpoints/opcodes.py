"""A bounded interpreter for the part of the pickle language that weight files use.

`pickle.Unpickler` with a restricted `find_class` is not enough for files from strangers: its memo
is an array that nine bytes make 4 GB large, and it hashes whatever keys it is given. This machine
knows the opcodes that Python and torch write for protocols 2 to 5, and nothing else:

- names are looked up as exact (module, name) pairs in the caller's table, never imported;
- REDUCE and NEWOBJ call only what that table lists, BUILD works only on the types in `records`;
- dict keys and set items are str or int, the targets of SETITEM, APPEND and ADDITEMS are exactly
  dict, list and set, the memo is a dict;
- every opcode is paid for from the file's budget, and no length is believed before it is compared
  with the bytes that are there;
- bytes stay views of the file.

The opcodes are described in CPython's pickletools module.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from .records import BUILDABLE, Global, InertDict
from .source import Source, shown

__all__ = ["Machine"]

_MAX_NAME = 256
# torch's magic number has 10 bytes; everything else fits 8.
_MAX_INT_BYTES = 16
_MAX_KEY_CHARS = 4096


class Machine:
    """Runs one pickle stream.

    Args:
        source: the file, for messages and budget.
        data: the bytes that hold the stream; it may be followed by others.
        start: offset of the stream in `data`.
        names: every global the stream may refer to.
        hints: module prefix -> sentence for the refusal of a global that is recognised but not
            supported.
        persistent: pid -> value for BINPERSID; None refuses it.
        where: what `data` is, for messages: "" for the file itself.
    """

    def __init__(
        self,
        source: Source,
        data: memoryview,
        *,
        start: int = 0,
        names: Mapping[tuple[str, str], Global],
        hints: Mapping[str, str] | None = None,
        persistent: Callable[[Machine, object], object] | None = None,
        where: str = "",
    ) -> None:
        self.source = source
        self.data = data
        self.pos = start
        self.names = names
        self.hints = hints or {}
        self.persistent = persistent
        self.where = where
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.op_start = start
        self.op = 0

    # Messages and budget

    def place(self) -> str:
        """Where the machine is: stream, byte offset, opcode."""
        name = _OPCODES[self.op][0] if self.op in _OPCODES else f"opcode {self.op:#04x}"
        return f"{self.where + ', ' if self.where else ''}byte {self.op_start} ({name})"

    def fail(self, reason: str) -> NoReturn:
        """Raise the CheckpointError of this place."""
        self.source.fail(reason, self.place())

    def spend(self, count: int) -> None:
        """Pay for `count` opcodes, or for as many items handled by one."""
        budget = self.source.budget
        budget.opcodes -= count
        if budget.opcodes < 0:
            self.fail("more pickle opcodes than any weight file needs")

    # Stack

    def pop(self) -> Any:
        """Top of the stack above the last mark."""
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            self.fail("takes a value from an empty stack")
        return self.stack.pop()

    def top(self) -> Any:
        """Like `pop`, without removing."""
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            self.fail("takes a value from an empty stack")
        return self.stack[-1]

    def pop_mark(self) -> list[Any]:
        """Values above the last mark; the mark goes too."""
        if not self.marks:
            self.fail("looks for a mark that is not there")
        mark = self.marks.pop()
        items = self.stack[mark:]
        del self.stack[mark:]
        self.spend(len(items))
        return items

    def key(self, value: object) -> str | int:
        """`value` if it may be a dict key or set item.

        Only str and small int: hashing a nested tuple can take exponential time, and integers
        beyond 2^61 can be chosen to collide.
        """
        if type(value) is str and len(value) <= _MAX_KEY_CHARS:
            return value
        if type(value) is int and -(1 << 60) < value < 1 << 60:
            return value
        self.fail(f"a key that is neither short text nor a small integer but {shown(value)}")

    # Reading

    def take(self, count: int) -> memoryview:
        """The next `count` bytes."""
        end = self.pos + count
        if end > len(self.data):
            self.fail(f"needs {count} bytes, {len(self.data) - self.pos} are left")
        out = self.data[self.pos : end]
        self.pos = end
        return out

    def number(self, count: int) -> int:
        """The next `count` bytes as unsigned little-endian integer."""
        return int.from_bytes(self.take(count), "little")

    def text(self, count: int) -> str:
        """The next `count` bytes as UTF-8.

        Pickle also allows lone surrogates; nobody needs them.
        """
        try:
            return str(self.take(count), "utf-8")
        except UnicodeDecodeError:
            self.fail("text that is not UTF-8")

    def line(self) -> str:
        """Bytes up to the next newline, as a short ASCII name."""
        chunk = bytes(self.data[self.pos : self.pos + _MAX_NAME + 1])
        end = chunk.find(b"\n")
        if end < 0:
            self.fail("a name that is too long or not ended")
        self.pos += end + 1
        try:
            return chunk[:end].decode("ascii")
        except UnicodeDecodeError:
            self.fail("a name that is not ASCII")

    def run_alone(self) -> Any:
        """Execute a pickle behind which the data ends.

        Raises:
            CheckpointError: as `run`, or something follows.
        """
        value = self.run()
        if self.pos != len(self.data):
            self.source.fail(f"{len(self.data) - self.pos} bytes after the end of the pickle")
        return value

    def run(self) -> Any:
        """Execute up to STOP; afterwards `pos` is just behind it.

        Raises:
            CheckpointError: anything that is not listed in this file.
        """
        self.op_start = self.pos
        if self.pos + 2 > len(self.data) or self.data[self.pos] != 0x80:
            self.fail("does not begin like a pickle of protocol 2 to 5")
        version = self.data[self.pos + 1]
        if not 2 <= version <= 5:
            self.fail(f"pickle protocol {version}; known are 2 to 5")
        self.pos += 2
        data, size, budget = self.data, len(self.data), self.source.budget
        while True:
            self.op_start = self.pos
            if self.pos >= size:
                self.op = 0
                self.source.fail(
                    "ends in the middle of a pickle (truncated?)",
                    f"{self.where + ', ' if self.where else ''}byte {self.pos}",
                )
            op = self.op = data[self.pos]
            self.pos += 1
            budget.opcodes -= 1
            if budget.opcodes < 0:
                self.spend(0)
            if op == 0x2E:  # STOP
                if len(self.stack) != 1 or self.marks:
                    self.fail("stops with a stack that does not hold exactly one value")
                return self.stack.pop()
            entry = _OPCODES.get(op)
            if entry is None:
                self.fail("an opcode that no weight file needs")
            entry[1](self)

    # Names and objects

    def find(self, module: object, name: object) -> Global:
        """The entry of the table for exactly this pair."""
        found = None
        if type(module) is str and type(name) is str:
            found = self.names.get((module, name))
        if found is not None:
            return found
        if type(module) is str:
            for prefix, sentence in self.hints.items():
                if module == prefix or module.startswith(prefix + "."):
                    self.fail(sentence)
        self.fail(
            f"refers to {shown(name)} in module {shown(module)}, which no known kind of weight "
            "file needs; nothing was imported or run"
        )

    def _reduce(self) -> None:
        args, func = self.pop(), self.pop()
        if type(args) is not tuple:
            self.fail("calls something with arguments that are no tuple")
        call = func.call if isinstance(func, Global) else None
        if call is None:
            self.fail(f"calls {func.name if isinstance(func, Global) else shown(func)}")
        self.stack.append(call(self, args))

    def _new_object(self) -> None:
        args, cls = self.pop(), self.pop()
        if type(args) is not tuple:
            self.fail("creates an object with arguments that are no tuple")
        new = cls.new if isinstance(cls, Global) else None
        if new is None:
            self.fail(f"creates a {cls.name if isinstance(cls, Global) else shown(cls)}")
        self.stack.append(new(self, args))

    def _build(self) -> None:
        state, target = self.pop(), self.top()
        if type(target) not in BUILDABLE:
            self.fail(f"sets the state of {shown(target)}")
        target.build(self, state)

    def _persistent_id(self) -> None:
        pid = self.pop()
        if self.persistent is None:
            self.fail("refers to data outside of the pickle")
        self.stack.append(self.persistent(self, pid))

    # Containers

    def _set_items(self, items: list[Any]) -> None:
        target = self.top()
        if type(target) is not dict and type(target) is not InertDict:
            self.fail(f"sets an item of {shown(target)}")
        if len(items) % 2:
            self.fail("sets a key without a value")
        for i in range(0, len(items), 2):
            target[self.key(items[i])] = items[i + 1]

    def _append_items(self, items: list[Any]) -> None:
        target = self.top()
        if type(target) is not list:
            self.fail(f"appends to {shown(target)}")
        target.extend(items)

    def _add_items(self, items: list[Any]) -> None:
        target = self.top()
        if type(target) is not set:
            self.fail(f"adds to {shown(target)}")
        for item in items:
            target.add(self.key(item))

    def _make_tuple(self, count: int) -> None:
        items = [self.pop() for _ in range(count)]
        self.stack.append(tuple(reversed(items)))

    def _memo_get(self, index: int) -> None:
        if index not in self.memo:
            self.fail(f"recalls value {index}, which was never stored")
        self.stack.append(self.memo[index])

    def _memo_put(self, index: int) -> None:
        self.memo[index] = self.top()

    def _long1(self) -> None:
        count = self.number(1)
        if count > _MAX_INT_BYTES:
            self.fail(f"an integer of {count} bytes")
        self.stack.append(int.from_bytes(self.take(count), "little", signed=True))

    def _old_string(self, count: int) -> None:
        # Python 2's str: names and keys, which are ASCII, and the data of arrays.
        data = self.take(count)
        try:
            self.stack.append(str(data, "ascii"))
        except UnicodeDecodeError:
            self.stack.append(data)

    def _global(self) -> None:
        module = self.line()
        self.stack.append(self.find(module, self.line()))

    def _stack_global(self) -> None:
        name, module = self.pop(), self.pop()
        self.stack.append(self.find(module, name))

    def _frame(self) -> None:
        count = self.number(8)
        if count > len(self.data) - self.pos:
            self.fail(f"a frame of {count} bytes, {len(self.data) - self.pos} are left")

    def _mark(self) -> None:
        self.marks.append(len(self.stack))

    def _empty_set(self) -> None:
        # A set takes the memory of four other values.
        self.spend(3)
        self.stack.append(set())

    def _push_dict_item(self) -> None:
        value, key = self.pop(), self.pop()
        self._set_items([key, value])


def _push(value: object) -> Callable[[Machine], None]:
    return lambda m: m.stack.append(value)


# Byte -> (name as in pickletools, action). STOP (0x2e) and PROTO (0x80) are in `Machine.run`.
_OPCODES: dict[int, tuple[str, Callable[[Machine], None]]] = {
    0x28: ("MARK", Machine._mark),
    0x29: ("EMPTY_TUPLE", _push(())),
    0x42: ("BINBYTES", lambda m: m.stack.append(m.take(m.number(4)))),
    0x43: ("SHORT_BINBYTES", lambda m: m.stack.append(m.take(m.number(1)))),
    0x47: ("BINFLOAT", lambda m: m.stack.append(struct.unpack(">d", m.take(8))[0])),
    0x4A: ("BININT", lambda m: m.stack.append(struct.unpack("<i", m.take(4))[0])),
    0x4B: ("BININT1", lambda m: m.stack.append(m.number(1))),
    0x4D: ("BININT2", lambda m: m.stack.append(m.number(2))),
    0x4E: ("NONE", _push(None)),
    0x51: ("BINPERSID", Machine._persistent_id),
    0x52: ("REDUCE", Machine._reduce),
    0x54: ("BINSTRING", lambda m: m._old_string(m.number(4))),
    0x55: ("SHORT_BINSTRING", lambda m: m._old_string(m.number(1))),
    0x58: ("BINUNICODE", lambda m: m.stack.append(m.text(m.number(4)))),
    0x5D: ("EMPTY_LIST", lambda m: m.stack.append([])),
    0x61: ("APPEND", lambda m: m._append_items([m.pop()])),
    0x62: ("BUILD", Machine._build),
    0x63: ("GLOBAL", Machine._global),
    0x65: ("APPENDS", lambda m: m._append_items(m.pop_mark())),
    0x68: ("BINGET", lambda m: m._memo_get(m.number(1))),
    0x6A: ("LONG_BINGET", lambda m: m._memo_get(m.number(4))),
    0x71: ("BINPUT", lambda m: m._memo_put(m.number(1))),
    0x72: ("LONG_BINPUT", lambda m: m._memo_put(m.number(4))),
    0x73: ("SETITEM", Machine._push_dict_item),
    0x74: ("TUPLE", lambda m: m.stack.append(tuple(m.pop_mark()))),
    0x75: ("SETITEMS", lambda m: m._set_items(m.pop_mark())),
    0x7D: ("EMPTY_DICT", lambda m: m.stack.append({})),
    0x81: ("NEWOBJ", Machine._new_object),
    0x85: ("TUPLE1", lambda m: m._make_tuple(1)),
    0x86: ("TUPLE2", lambda m: m._make_tuple(2)),
    0x87: ("TUPLE3", lambda m: m._make_tuple(3)),
    0x88: ("NEWTRUE", _push(True)),
    0x89: ("NEWFALSE", _push(False)),
    0x8A: ("LONG1", Machine._long1),
    0x8C: ("SHORT_BINUNICODE", lambda m: m.stack.append(m.text(m.number(1)))),
    0x8D: ("BINUNICODE8", lambda m: m.stack.append(m.text(m.number(8)))),
    0x8E: ("BINBYTES8", lambda m: m.stack.append(m.take(m.number(8)))),
    0x8F: ("EMPTY_SET", Machine._empty_set),
    0x90: ("ADDITEMS", lambda m: m._add_items(m.pop_mark())),
    0x93: ("STACK_GLOBAL", Machine._stack_global),
    0x94: ("MEMOIZE", lambda m: m._memo_put(len(m.memo))),
    0x95: ("FRAME", Machine._frame),
    0x96: ("BYTEARRAY8", lambda m: m.stack.append(m.take(m.number(8)))),
}
