"""The places of a source where a small change makes a mutant, and the mutant's source.

What people read is no place: docstrings, annotations, messages. Pure.
"""

import ast
import hashlib
from collections.abc import Iterable, Iterator
from typing import NamedTuple

_COMPARE: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
}
_ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.FloorDiv: ast.Mult,
    ast.Div: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.BitXor: ast.BitAnd,
}
_WORDS = {"help", "metavar", "description", "prog", "usage", "epilog"}  # keywords whose values people read
_LOGGING = {"debug", "info", "warning", "error", "exception"}  # of a logger
_TYPING = {"TypeVar", "NewType", "ParamSpec"}
_OPAQUE = {"__all__", "__slots__", "TYPE_CHECKING"}
_SHOWN = 70  # characters of a change


class Place(NamedTuple):
    """A part of a source, and what stands there in the mutant. Columns are bytes from 0, lines count from 1."""

    file: str
    function: str  # its name with those around it; empty for what runs on import
    kind: str
    begin: tuple[int, int]
    end: tuple[int, int]
    new: str
    shown: str  # the change in a few words
    number: int  # of the places that differ in nothing else

    @property
    def line(self) -> int:
        """The line where it begins."""
        return self.begin[0]

    @property
    def name(self) -> str:
        """What it is called in every version of the source that has it."""
        return f"{self.file}:{self.function}: {self.kind}: {self.shown} #{self.number}"

    def rank(self, seed: int) -> str:
        """Its turn in a sample: the same for a seed whatever else the source has."""
        return hashlib.sha256(f"{seed}\n{self.name}".encode()).hexdigest()


def mutate(source: str, place: Place) -> str:
    """The source with the change."""
    lines = source.encode().splitlines(keepends=True)
    (first, begin), (last, end) = place.begin, place.end
    changed = lines[first - 1][:begin] + place.new.encode() + lines[last - 1][end:]
    return b"".join([*lines[: first - 1], changed, *lines[last:]]).decode()


def find_places(source: str, file: str) -> list[Place]:
    """All places of a source, in the order of its lines."""
    finder = _Finder(file)
    finder.visit(ast.parse(source))
    return sorted(finder.places, key=lambda place: (place.begin, place.end, place.kind))


class _Finder(ast.NodeVisitor):
    def __init__(self, file: str) -> None:
        self.places: list[Place] = []
        self._file = file
        self._scope: list[str] = []
        self._function = ""
        self._counts: dict[tuple[str, str, str], int] = {}

    def _add(self, kind: str, node: ast.expr | ast.stmt, new: str, shown: str = "") -> None:
        shown = shown or f"{_short(ast.unparse(node))} -> {_short(new)}"
        key = (self._function, kind, shown)
        number = self._counts[key] = self._counts.get(key, 0) + 1
        begin, end = (node.lineno, node.col_offset), (node.end_lineno or 0, node.end_col_offset or 0)
        self.places.append(Place(self._file, self._function, kind, begin, end, new, shown, number))

    def _replace(self, kind: str, node: ast.expr, changed: ast.expr) -> None:
        text = ast.unparse(changed)
        self._add(kind, node, f"({text})", f"{_short(ast.unparse(node))} -> {_short(text)}")

    # Statements

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self._scope.append(node.name)
        self._visit_body(node.body)
        self._scope.pop()

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self._scope.append(node.name)
        above, self._function = self._function, ".".join(self._scope)
        for default in (*node.args.defaults, *filter(None, node.args.kw_defaults)):
            self.visit(default)
        self._visit_body(node.body)
        self._function = above
        self._scope.pop()

    def _visit_body(self, body: Iterable[ast.stmt]) -> None:
        for statement in body:
            self.visit(statement)

    def visit_If(self, node: ast.If) -> None:
        names = {each.id for each in ast.walk(node.test) if isinstance(each, ast.Name)}
        if names & {"TYPE_CHECKING", "__name__"}:
            self._visit_body(node.orelse)
            return
        self._negate(node.test)
        self.generic_visit(node)

    def visit_While(self, node: ast.While) -> None:
        self._negate(node.test)
        self.generic_visit(node)

    def visit_IfExp(self, node: ast.IfExp) -> None:
        self._negate(node.test)
        self.generic_visit(node)

    def visit_comprehension(self, node: ast.comprehension) -> None:
        for test in node.ifs:
            self._negate(test)
        self.generic_visit(node)

    def _negate(self, test: ast.expr) -> None:
        if isinstance(test, ast.Constant) or _is_not(test):
            return  # a loop without a condition; what another operator turns round
        if isinstance(test, ast.Compare) and len(test.ops) == 1 and len(_COMPARE[type(test.ops[0])]) == 1:
            return
        self._replace("condition", test, ast.UnaryOp(ast.Not(), test))

    def visit_Return(self, node: ast.Return) -> None:
        if node.value is None:
            return
        if isinstance(node.value, ast.Constant) and node.value.value in (None, False):
            self.visit(node.value)  # None is as false as False
            return
        self._add("return", node.value, "None", f"return {_short(ast.unparse(node.value))} -> return None")
        self.visit(node.value)

    def visit_Raise(self, node: ast.Raise) -> None:
        self._add("statement", node, "pass", f"{_short(ast.unparse(node))} -> pass")
        if isinstance(node.exc, ast.Call):  # what it says is for people, what numbers it carries is not
            for part in (*node.exc.args, *(word.value for word in node.exc.keywords)):
                if not isinstance(part, ast.JoinedStr) and not _is_text(part):
                    self.visit(part)

    def visit_Expr(self, node: ast.Expr) -> None:
        call = node.value.value if isinstance(node.value, ast.Await) else node.value
        if not isinstance(call, ast.Call):
            if not isinstance(call, ast.Constant):
                self.generic_visit(node)
            return
        if not _is_logging(call):
            self._add("statement", node, "pass", f"{_short(ast.unparse(node))} -> pass")
            self.generic_visit(node)

    def visit_Break(self, node: ast.Break) -> None:
        self._add("statement", node, "continue")

    def visit_Continue(self, node: ast.Continue) -> None:
        self._add("statement", node, "break")

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        other = ast.AugAssign(node.target, _ARITHMETIC.get(type(node.op), ast.Add)(), node.value)
        self._add("arithmetic", node, ast.unparse(other))
        self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> None:
        names = {target.id for target in node.targets if isinstance(target, ast.Name)}
        if not names & _OPAQUE:
            self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit(node.value)

    def visit_Assert(self, node: ast.Assert) -> None:
        """What type checkers are told is no behaviour."""

    # Expressions

    def visit_Compare(self, node: ast.Compare) -> None:
        for i, old in enumerate(node.ops):
            choices = _COMPARE[type(old)]
            pick = hashlib.sha256(ast.unparse(node).encode()).digest()[i % 32] % len(choices)
            ops = [*node.ops[:i], choices[pick](), *node.ops[i + 1 :]]
            self._replace("comparison", node, ast.Compare(node.left, ops, node.comparators))
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        other = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        self._replace("and/or", node, ast.BoolOp(other, node.values))
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        if type(node.op) in _ARITHMETIC and not (isinstance(node.op, ast.BitOr) and _is_type(node)):
            self._replace("arithmetic", node, ast.BinOp(node.left, _ARITHMETIC[type(node.op)](), node.right))
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        if isinstance(node.op, ast.Not):
            self._replace("condition", node, node.operand)
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        if name in _TYPING or _is_logging(node):
            return
        self.visit(node.func)
        for argument in node.args[1:] if name == "cast" else node.args:
            self.visit(argument)
        for word in node.keywords:
            if word.arg not in _WORDS:
                self.visit(word.value)

    def visit_Subscript(self, node: ast.Subscript) -> None:
        self.visit(node.value)
        if not _is_type(node.value):
            self.visit(node.slice)

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        """As a whole: before Python 3.12 the parts have no positions of their own."""
        if not _is_text(node):
            self._add("constant", node, '""')

    def visit_Constant(self, node: ast.Constant) -> None:
        value = node.value
        if isinstance(value, bool):
            self._add("constant", node, repr(not value))
        elif isinstance(value, int):
            self._add("constant", node, repr(value + 1 if value % 2 == 0 else value - 1))
        elif isinstance(value, float):
            self._add("constant", node, repr(value + 1))
        elif isinstance(value, str) and not _is_text(node):
            self._add("constant", node, '""' if value else '"?"')
        elif isinstance(value, bytes):
            self._add("constant", node, 'b""' if value else 'b"?"')

    def visit_match_case(self, node: ast.match_case) -> None:
        """A pattern is no expression."""
        if node.guard is not None:
            self._negate(node.guard)
        self._visit_body(node.body)


def _is_not(node: ast.expr) -> bool:
    return isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not)


def _is_text(node: ast.expr) -> bool:
    """Whether a string is words for people: then there is a space in it."""
    parts: Iterator[ast.AST] = ast.walk(node) if isinstance(node, ast.JoinedStr) else iter([node])
    values = [part.value for part in parts if isinstance(part, ast.Constant)]
    return any(isinstance(value, str) and " " in value.strip() for value in values)


def _is_type(node: ast.expr) -> bool:
    """Whether an expression names a type, as far as its spelling tells."""
    if isinstance(node, ast.BinOp):
        return isinstance(node.op, ast.BitOr) and _is_type(node.left) and _is_type(node.right)
    if isinstance(node, ast.Subscript):
        return _is_type(node.value)
    if isinstance(node, ast.Constant):
        return node.value is None
    name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
    builtin = name in ("str", "int", "bytes", "bool", "float", "list", "dict", "tuple", "set", "frozenset", "type")
    return builtin or (name[:1].isupper() and not name.isupper())


def _is_logging(node: ast.Call) -> bool:
    called = node.func
    return isinstance(called, ast.Attribute) and called.attr in _LOGGING and "log" in ast.unparse(called.value).lower()


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."
