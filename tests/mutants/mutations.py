"""Small changes to source code, each of which a test ought to notice.

1. Every expression and statement of a file that can be changed gives its mutants: another operator, another
   number, a keyword argument that isn't passed, a condition turned round, a call left out.
2. What nobody can notice is left alone: prose (docstrings, messages, help), annotations, imports, `__all__`.
3. A mutant replaces the text of its node, so that all other lines stay where they are.
"""

import ast
import copy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

COMPARED = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
COMPUTED = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Add,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.BitXor: ast.BitOr,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
}
PROSE = (
    "print",
    "warn",
    "info",
    "debug",
    "add_argument",
    "ArgumentParser",
    "fail",
    "_say",
    "skip",
    "TypeVar",
)


@dataclass(frozen=True)
class Mutant:
    """A change to one node: `before` in the lines from `line` to `last` of `path` becomes `after`."""

    path: str
    line: int
    last: int
    start: int  # in bytes from the beginning of the file
    end: int
    before: str
    after: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}  {self.before}  ->  {self.after}"

    def applied(self, source: bytes) -> bytes:
        """The mutated file."""
        return source[: self.start] + self.after.encode() + source[self.end :]


def mutants(root: Path, path: str) -> list[Mutant]:
    """All mutants of the file at `root / path`, by line."""
    source = (root / path).read_bytes()
    starts = [0]
    for line in source.split(b"\n"):
        starts.append(starts[-1] + len(line) + 1)
    found = []
    for node, after in _changes(ast.parse(source), False):
        start, end = (
            starts[node.lineno - 1] + node.col_offset,
            starts[node.end_lineno - 1] + node.end_col_offset,
        )
        before = " ".join(source[start:end].decode().split())
        found.append(Mutant(path, node.lineno, node.end_lineno, start, end, before, after))
    return sorted(set(found), key=lambda m: (m.line, m.start, m.after))


def _changes(node: ast.AST, prose: bool) -> Iterator[tuple[Any, str]]:
    """Each node below that can be changed, with the text that takes its place."""
    if isinstance(node, ast.JoinedStr | ast.Import | ast.ImportFrom | ast.AnnAssign | ast.arg) or _is_main(
        node
    ):
        if isinstance(node, ast.AnnAssign) and node.value is not None:
            yield from _changes(node.value, prose)
        return
    if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) in ("__all__", "__slots__"):
        return
    prose = prose or isinstance(node, ast.Raise) or _called(node) in PROSE
    if isinstance(node, ast.stmt):
        yield from _statement(node)
    if isinstance(node, ast.expr):
        yield from ((node, f"({ast.unparse(new)})") for new in _expressions(node, prose))
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "bases", "type_params"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and not _is_docstring(child):
                yield from _changes(child, prose)


def _statement(node: Any) -> Iterator[tuple[Any, str]]:
    if isinstance(node, ast.Raise) or (
        isinstance(node, ast.Expr) and _called(node.value) not in ("", *PROSE)
    ):
        yield node, "pass"
    if isinstance(node, ast.AugAssign) and type(node.op) in COMPUTED:
        changed = copy.copy(node)
        changed.op = COMPUTED[type(node.op)]()
        yield node, ast.unparse(changed)
    if isinstance(node, ast.If | ast.While):
        yield node.test, f"(not ({ast.unparse(node.test)}))"


def _expressions(node: Any, prose: bool) -> Iterator[ast.expr]:
    """The expressions that may stand in the place of `node`."""
    new = copy.copy(node)
    match node:
        case ast.Compare(ops=[op]) if type(op) in COMPARED:
            new.ops = [COMPARED[type(op)]()]
            yield new
        case ast.BinOp(op=op) if type(op) in COMPUTED:
            new.op = COMPUTED[type(op)]()
            yield new
        case ast.BoolOp(op=op):
            new.op = ast.Or() if isinstance(op, ast.And) else ast.And()
            yield new
        case ast.UnaryOp(operand=operand):
            yield operand
        case ast.IfExp(test=test):
            new.test = ast.UnaryOp(ast.Not(), test)
            yield new
        case ast.Constant(value=value) if not (prose and isinstance(value, str)):
            yield from _constants(value)
        case ast.Call() if not prose:
            yield from _calls(node)
        case ast.Slice(lower=lower, upper=upper) if lower is not None or upper is not None:
            return
        case ast.ListComp() | ast.SetComp() | ast.GeneratorExp() if node.generators[-1].ifs:
            new.generators = copy.deepcopy(node.generators)
            new.generators[-1].ifs = []
            yield new


def _constants(value: Any) -> Iterator[ast.expr]:
    if isinstance(value, bool):
        yield ast.Constant(not value)
    elif isinstance(value, int):
        yield ast.Constant(value + 1)
    elif isinstance(value, float):
        yield ast.Constant(2 * value if value else 1.0)
    elif isinstance(value, str) and value.isidentifier():
        yield ast.Constant(f"{value}_")


def _calls(node: ast.Call) -> Iterator[ast.expr]:
    for keyword in node.keywords:
        if keyword.arg is not None:
            yield ast.Call(node.func, node.args, [k for k in node.keywords if k is not keyword])
    if len(node.args) > 1 and not any(isinstance(a, ast.Starred) for a in node.args[:2]):
        yield ast.Call(node.func, [node.args[1], node.args[0], *node.args[2:]], node.keywords)


def _called(node: ast.AST) -> str:
    """The last part of the name of what `node` calls."""
    if not isinstance(node, ast.Call):
        return ""
    return getattr(node.func, "attr", None) or getattr(node.func, "id", "")


def _is_docstring(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _is_main(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "__name__" in ast.unparse(node.test)
