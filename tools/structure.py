"""Check what ruff and import-linter do not: ``make structure``.

Import circles between files, copies of eight or more lines, long files and long functions. The
order of the packages is in pyproject.toml, for import-linter.
"""

import ast
import io
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from statistics import median, quantiles

import grimp
import networkx
from pylint.checkers.symilar import Symilar

COPIED_LINES = 8
FILE_LINES = 400
MEDIAN_STATEMENTS = 4
P90_STATEMENTS = 12

Function = ast.FunctionDef | ast.AsyncFunctionDef


def import_circles(package: str) -> list[str]:
    """Report the groups of files that import each other; imports for type checkers count."""
    graph = grimp.build_graph(package, cache_dir=None)
    imports = networkx.DiGraph(
        (module, imported)
        for module in graph.modules
        for imported in graph.find_modules_directly_imported_by(module)
    )
    circles = [sorted(c) for c in networkx.strongly_connected_components(imports) if len(c) > 1]
    return [f"import circle of {len(c)} files: {', '.join(c)}" for c in sorted(circles)]


def copies(files: list[Path]) -> list[str]:
    """Report code that stands in two files, or in two functions of one file."""
    between = _copies((str(path), path.read_text("utf-8")) for path in files)
    return between + [copy for path in files for copy in _copies(_functions(path))]


def _copies(texts: Iterable[tuple[str, str]]) -> list[str]:
    """Report lines that two of the named texts share: imports, signatures and comments apart."""
    search = Symilar(
        min_lines=COPIED_LINES - 1,  # it reports copies of more lines than this
        ignore_comments=True,
        ignore_docstrings=True,
        ignore_imports=True,
        ignore_signatures=True,
    )
    for name, text in texts:
        search.append_stream(name, io.StringIO(text))
    return [
        f"copy of {count} lines: "
        + ", ".join(sorted(f"{lines.name}:{start + 1}" for lines, start, _ in places))
        for count, places in search._compute_sims()  # what `symilar` prints
    ]


def _functions(path: Path) -> Iterator[tuple[str, str]]:
    """Give the source of each function and method, indented as a class body."""
    text = path.read_text("utf-8")
    lines = text.splitlines()
    tree = ast.parse(text)
    for node in [
        *tree.body,
        *(n for c in tree.body if isinstance(c, ast.ClassDef) for n in c.body),
    ]:
        if isinstance(node, Function):
            header = "class _:" if node.col_offset else ""
            body = lines[node.lineno - 1 : node.end_lineno]
            yield f"{path}:{node.name}:{node.lineno}", "\n".join([header, *body])


def long_files(files: list[Path]) -> list[str]:
    """Report the files above the limit."""
    lengths = {path: len(path.read_text("utf-8").splitlines()) for path in files}
    return [
        f"{path}: {length} lines, expected at most {FILE_LINES}: split it by topic"
        for path, length in lengths.items()
        if length > FILE_LINES
    ]


def statements(function: Function) -> int:
    """Count a function's statements, without its docstring and the bodies of nested functions."""
    nodes = list(function.body)
    if ast.get_docstring(function) is not None:
        del nodes[0]
    count = 0
    while nodes:
        node = nodes.pop()
        count += isinstance(node, ast.stmt)
        if not isinstance(node, Function | ast.ClassDef):
            nodes.extend(ast.iter_child_nodes(node))
    return count


def function_lengths(files: list[Path]) -> list[int]:
    """Count the statements of every function in the files."""
    trees = (ast.parse(path.read_text("utf-8")) for path in files)
    return [statements(n) for tree in trees for n in ast.walk(tree) if isinstance(n, Function)]


def long_functions(name: str, lengths: list[int]) -> list[str]:
    """Report a median or 90th percentile above its limit."""
    found = {"median": median(lengths), "90th percentile": quantiles(lengths, n=10)[-1]}
    limits = {"median": MEDIAN_STATEMENTS, "90th percentile": P90_STATEMENTS}
    return [
        f"{name}: {kind} of function length is {found[kind]:g} statements, expected at most {limit}"
        for kind, limit in limits.items()
        if found[kind] > limit
    ]


def summary(name: str, files: list[Path], lengths: list[int]) -> str:
    """Describe a part of the tree in one line."""
    total = sum(len(path.read_text("utf-8").splitlines()) for path in files)
    return (
        f"{name:12} {len(files):4} files {total:6} lines; statements a function: "
        f"median {median(lengths):g}, 90th percentile {quantiles(lengths, n=10)[-1]:g}"
    )


def main() -> int:
    """Print a summary and every fault; the exit status is 1 if there is one."""
    source = sorted(Path("src").rglob("*.py"))
    experiments = [path for path in source if "experiments" in path.parts]
    parts = {
        "library": [path for path in source if path not in experiments],
        "experiments": experiments,
    }
    others = [
        p
        for folder in ("benchmarks", "examples", "tests", "tools")
        for p in Path(folder).rglob("*.py")
    ]
    faults = [*import_circles("nysact"), *copies([*source, *sorted(others)])]
    faults += long_files([*source, *sorted(others)])
    for name, files in parts.items():
        lengths = function_lengths(files)
        print(summary(name, files, lengths))
        faults += long_functions(name, lengths)
    print(*faults, f"{len(faults)} faults", sep="\n")
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
