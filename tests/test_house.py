"""The house rules that an import linter cannot see.

Each rule is a function from a parsed module to what it found, so each is shown to catch a planted violation.
"""

import ast
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "dea_daemon"
ABOVE_THE_CORE = {"shell", "wiring", "research", "cli.py", "__main__.py"}
ROOMS = [
    "domain",
    "pricing",
    "feeds",
    "state",
    "forecast",
    "allocator",
    "guards",
    "execution",
    "simvenue",
    "shell",
    "wiring",
]
LINES_MAX = 700

WALL_CLOCKS = {
    "datetime.date.today",
    "datetime.datetime.now",
    "datetime.datetime.today",
    "datetime.datetime.utcnow",
    "os.urandom",
}
CLOCK_AND_CHANCE_MODULES = ("random.", "secrets.", "time.", "uuid.uuid")
SEEDED = {  # these need a seed; the rest of numpy.random is the global, legacy generator
    f"numpy.random.{name}"
    for name in ("default_rng", "SeedSequence", "PCG64", "PCG64DXSM", "Philox", "MT19937", "SFC64")
}
NUMPY_RANDOM_TYPES = {"numpy.random.Generator", "numpy.random.BitGenerator", *SEEDED}

Rule = Callable[[ast.Module, Path], list[str]]


def names_imported(tree: ast.Module) -> dict[str, str]:
    """Local name → the full dotted name it stands for, for every import in the module."""
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                local = alias.asname or alias.name.partition(".")[0]
                names[local] = alias.name if alias.asname else local
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                names[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    return names


def dotted(node: ast.expr, names: dict[str, str]) -> str:
    """`np.random.rand` → "numpy.random.rand"; "" for anything that is not a plain imported name."""
    if isinstance(node, ast.Name):
        return names.get(node.id, "")
    if isinstance(node, ast.Attribute):
        head = dotted(node.value, names)
        return f"{head}.{node.attr}" if head else ""
    return ""


def last_name(node: ast.expr) -> str:
    """`a.b.c` → "c"; `c` → "c"."""
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def with_functions(node: ast.AST, inside: tuple[str, ...] = ()) -> Iterator[tuple[ast.AST, tuple[str, ...]]]:
    """Every node, with the names of the functions it stands in, outermost first."""
    yield node, inside
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        inside = (*inside, node.name)
    for child in ast.iter_child_nodes(node):
        yield from with_functions(child, inside)


def approvals_outside_admit(tree: ast.Module, path: Path) -> list[str]:
    """`Approved` is made, or given another name, anywhere but in `admit` of guards/admit.py."""
    found = []
    for node, inside in with_functions(tree):
        in_admit = path.parts[-2:] == ("guards", "admit.py") and inside[:1] == ("admit",)
        if isinstance(node, ast.Call) and last_name(node.func) == "Approved" and not in_admit:
            found.append(f"{path}:{node.lineno}: Approved made outside admit")
        if isinstance(node, ast.alias) and node.name == "Approved" and node.asname:
            found.append(f"{path}:{node.lineno}: Approved imported as {node.asname}")
        if isinstance(node, ast.Assign) and last_name(node.value) == "Approved":
            found.append(f"{path}:{node.lineno}: Approved under another name")
    return found


def clock_or_chance(tree: ast.Module, path: Path) -> list[str]:
    """A wall clock, or randomness without a seed, called or handed on as a function."""
    names = names_imported(tree)
    called_nodes = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = dotted(node.func, names)
            arguments = [*node.args, *(keyword.value for keyword in node.keywords)]
            constants = [a.value if isinstance(a, ast.Constant) else ... for a in arguments]
            if called in SEEDED and constants[:1] in ([], [None]):
                found.append(f"{path}:{node.lineno}: {called} without a seed")
            if called == "numpy.datetime64" and constants[:1] in (["now"], ["today"]):
                found.append(f"{path}:{node.lineno}: {called} of the wall clock")
        if isinstance(node, ast.Attribute | ast.Name):
            name = dotted(node, names)
            legacy = name.startswith("numpy.random.") and name not in NUMPY_RANDOM_TYPES
            handed_on = name == "numpy.random.default_rng" and id(node) not in called_nodes
            if name in WALL_CLOCKS or name.startswith(CLOCK_AND_CHANCE_MODULES) or legacy or handed_on:
                found.append(f"{path}:{node.lineno}: {name}")
    return found


def bare_asserts(tree: ast.Module, path: Path) -> list[str]:
    """`assert` vanishes under -O; production code uses `check`."""
    return [f"{path}:{node.lineno}: assert" for node in ast.walk(tree) if isinstance(node, ast.Assert)]


def withdrawals(tree: ast.Module, path: Path) -> list[str]:
    """A function that withdraws is defined, called, or looked up by name. Asking whether a key may is not."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            names = [node.name]
        elif isinstance(node, ast.Call):
            names = [last_name(node.func)]
            if names[0] in {"getattr", "methodcaller", "attrgetter"}:
                texts = (arg.value for arg in node.args if isinstance(arg, ast.Constant))
                names += [text for text in texts if isinstance(text, str)]
        else:
            continue
        for name in names:
            plain = name.strip("_").lower()
            if plain.startswith("withdraw") or ("post" in plain and "withdraw" in plain):
                found.append(f"{path}:{node.lineno}: {name}")
    return found


def too_long(source: str) -> bool:
    return source.count("\n") > LINES_MAX


def says_what_it_is(tree: ast.Module) -> bool:
    """Three lines at least: what comes in, what goes out, what it must never know."""
    return len([line for line in (ast.get_docstring(tree) or "").splitlines() if line.strip()]) >= 3


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def core() -> list[Path]:
    return [path for path in modules() if path.relative_to(PACKAGE).parts[0] not in ABOVE_THE_CORE]


def violations(rule: Rule, paths: list[Path]) -> list[str]:
    return [
        found
        for path in paths
        for found in rule(ast.parse(path.read_text(encoding="utf-8")), path.relative_to(PACKAGE))
    ]


def test_the_house_is_found():
    assert len(core()) > len(ROOMS)
    assert set(core()) < set(modules())


def test_only_admit_makes_an_approved_order():
    assert violations(approvals_outside_admit, modules()) == []


def test_the_core_reads_no_clock_and_draws_no_unseeded_number():
    assert violations(clock_or_chance, core()) == []


def test_production_code_has_no_assert():
    assert violations(bare_asserts, modules()) == []


def test_nothing_can_withdraw():
    assert violations(withdrawals, modules()) == []


def test_no_file_is_too_long():
    assert [path for path in modules() if too_long(path.read_text(encoding="utf-8"))] == []


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_says_what_comes_in_what_goes_out_and_what_it_must_never_know(room):
    source = (PACKAGE / room / "__init__.py").read_text(encoding="utf-8")
    assert says_what_it_is(ast.parse(source))


PLANTED: list[tuple[Rule, str, str]] = [
    (approvals_outside_admit, "guards/admit.py", "def helper(): return Approved(1)"),
    (approvals_outside_admit, "guards/admit.py", "def helper():\n def admit(): return Approved(1)"),
    (approvals_outside_admit, "guards/limits.py", "def admit(): return Approved(1)"),
    (approvals_outside_admit, "shell/gateway.py", "order = orders.Approved(1)"),
    (approvals_outside_admit, "shell/gateway.py", "from dea_daemon.domain import Approved as Order"),
    (approvals_outside_admit, "shell/gateway.py", "make = Approved"),
    (clock_or_chance, "engine.py", "import time\nnow = time.time()"),
    (clock_or_chance, "engine.py", "from time import monotonic_ns as clock\nnow = clock()"),
    (clock_or_chance, "engine.py", "import time\nfield(default_factory=time.time_ns)"),
    (clock_or_chance, "engine.py", "import datetime as d\nnow = d.datetime.now(d.UTC)"),
    (clock_or_chance, "engine.py", "from datetime import datetime\nnow = datetime.utcnow()"),
    (clock_or_chance, "engine.py", "def f():\n import random\n return random.random()"),
    (clock_or_chance, "engine.py", "import uuid\nname = uuid.uuid4()"),
    (clock_or_chance, "engine.py", "import numpy as np\nx = np.random.normal(size=3)"),
    (clock_or_chance, "engine.py", "import numpy as np\nnp.random.seed(7)"),
    (clock_or_chance, "engine.py", "import numpy as np\nrng = np.random.default_rng()"),
    (clock_or_chance, "engine.py", "import numpy as np\nrng = np.random.default_rng(seed=None)"),
    (clock_or_chance, "engine.py", "import numpy as np\nfield(default_factory=np.random.default_rng)"),
    (clock_or_chance, "engine.py", "from numpy.random import default_rng\nrng = default_rng(None)"),
    (clock_or_chance, "engine.py", "import numpy as np\nnow = np.datetime64('now')"),
    (bare_asserts, "state/books.py", "def f(x):\n    assert x > 0"),
    (withdrawals, "shell/gateway.py", "async def withdraw(self): ..."),
    (withdrawals, "shell/gateway.py", "await client.withdraw('BTC', 1, address)"),
    (withdrawals, "shell/gateway.py", "client.private_post_wallet_withdraw({})"),
    (withdrawals, "shell/gateway.py", "client.sapiPostCapitalWithdrawApply({})"),
    (withdrawals, "shell/gateway.py", "getattr(client, 'withdraw')()"),
]

ALLOWED: list[tuple[Rule, str, str]] = [
    (approvals_outside_admit, "guards/admit.py", "def admit(p, cs): return [Approved(c) for c in cs]"),
    (approvals_outside_admit, "shell/gateway.py", "def submit(a: Approved): return isinstance(a, Approved)"),
    (clock_or_chance, "engine.py", "import numpy as np\nrng = np.random.default_rng(seed)"),
    (
        clock_or_chance,
        "engine.py",
        "import numpy as np\ndef f(rng: np.random.Generator): return rng.normal()",
    ),
    (clock_or_chance, "engine.py", "def f(event): return event.time.now()"),
    (clock_or_chance, "engine.py", "import datetime as d\nt = d.datetime.fromtimestamp(0, d.UTC)"),
    (bare_asserts, "state/books.py", "def f(x):\n    check(x > 0, 'x')"),
    (withdrawals, "shell/keys.py", "if permissions.get('enableWithdrawals'): refuse(key_may_withdraw)"),
]


@pytest.mark.parametrize(("rule", "path", "source"), PLANTED)
def test_a_planted_violation_is_caught(rule, path, source):
    assert rule(ast.parse(source), Path(path)) != []


@pytest.mark.parametrize(("rule", "path", "source"), ALLOWED)
def test_what_the_house_allows_is_let_through(rule, path, source):
    assert rule(ast.parse(source), Path(path)) == []


def test_a_file_too_long_is_caught():
    assert too_long("\n" * (LINES_MAX + 1))
    assert not too_long("\n" * LINES_MAX)


@pytest.mark.parametrize("source", ["", "x = 1", '"""One line."""', '"""Two.\n\nlines."""'])
def test_a_room_that_does_not_say_is_caught(source):
    assert not says_what_it_is(ast.parse(source))
