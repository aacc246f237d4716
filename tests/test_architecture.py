"""The rules of the house, read from the source: who imports whom, what is written out, what is never called.

A folder of dl_course is a topic unless SHARED names it, so a new room is under these rules from its first day.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from dl_course.layers import activations
from dl_course.losses import LOSSES

ROOT = Path(__file__).resolve().parent.parent
SHARED = {"data", "layers", "optim", "training"}  # rooms that any topic may use
MAX_LINES = 500


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def modules(*folders: str) -> list[Path]:
    """Python files below the folders, relative to the root."""
    return sorted(p.relative_to(ROOT) for folder in folders for p in (ROOT / folder).rglob("*.py"))


def dotted(path: Path) -> str:
    """dl_course/mlp/mlp.py → dl_course.mlp.mlp; a package by its own name."""
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room(name: str) -> str:
    """The room of a dotted name: dl_course.mlp.mlp → mlp, and "" for what is in none."""
    parts = name.split(".")
    return parts[1] if len(parts) > 1 and parts[0] == "dl_course" and (ROOT / "dl_course" / parts[1]).is_dir() else ""


TOPICS = {room(dotted(path)) for path in modules("dl_course")} - SHARED - {""}
PACKAGE = modules("dl_course")
SOURCES = modules("dl_course", "experiments")


def imports(source: ast.AST, path: Path) -> Iterator[str]:
    """Every dotted name that a module imports, at the top or inside a function, `import_module("…")` included."""
    package = dotted(path).split(".")
    if path.name != "__init__.py":
        package = package[:-1]
    for node in ast.walk(source):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{origin}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and last(node.func) in {"import_module", "__import__"}:
            yield from (str(word.value) for word in node.args[:1] if isinstance(word, ast.Constant))


def last(node: ast.AST) -> str:
    """The last name of a.b.c or c; "" for anything else."""
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


# --- who imports whom


def foreign_topics(source: ast.AST, path: Path) -> set[str]:
    """The topics that a module imports although it is not in them."""
    return {room(name) for name in imports(source, path)} & TOPICS - {room(dotted(path))}


@pytest.mark.parametrize("path", PACKAGE, ids=str)
def test_imports_no_other_topic(path: Path):
    """A topic imports no other topic; training, data and all that topics share import none at all."""
    assert not foreign_topics(tree(ROOT / path), path), "what two topics need belongs into a shared room"


@pytest.mark.parametrize(
    "line",
    [
        "import dl_course.mlp",
        "from dl_course import mlp",
        "from dl_course.mlp.mlp import MLP",
        "from ..mlp import MLP",
        "from .. import mlp",
        "def f():\n    from dl_course.mlp import MLP",
        "import_module('dl_course.mlp')",
    ],
)
def test_foreign_topics_are_seen_however_they_are_imported(line: str):
    assert foreign_topics(ast.parse(line), Path("dl_course/training/task.py")) == {"mlp"}
    assert foreign_topics(ast.parse(line), Path("dl_course/regression/linear.py")) == {"mlp"}
    assert foreign_topics(ast.parse(line), Path("dl_course/mlp/mlp.py")) == set()


def test_the_rooms_are_where_these_tests_look():
    assert {"regression", "mlp"} <= TOPICS
    assert all((ROOT / "dl_course" / name / "__init__.py").is_file() for name in SHARED | TOPICS)


def test_no_module_is_named_after_nothing():
    nothing = {"utils", "util", "common", "helpers", "helper", "misc", "tools"}
    found = [p for p in modules("dl_course", "experiments", "tests") if nothing & set(p.with_suffix("").parts)]
    assert found == []


@pytest.mark.parametrize("module", ["dl_course", "dl_course.cli", "dl_course.catalog"])
def test_importing_is_light(module: str):
    """`import dl_course` and the command's `--help` do not wait for torch."""
    heavy = "{'torch', 'lightning', 'numpy', 'hydra', 'pandas', 'sklearn'}"
    code = f"import sys, {module}; print(*{heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == ""


# --- scratch means scratch


@dataclass(frozen=True)
class Written:
    """What a module writes out: names of the library that it may not use, and definitions that are the library's.

    forbidden: a name counts wherever it stands in what is called: "linalg" forbids torch.linalg.solve, "relu" forbids
        F.relu(x), x.relu(), torch.ops.aten.relu and `from torch import relu`.
    beside: top-level definitions that use the library on purpose, such as the twin that tests compare with.
    chosen_by: the only ones that may refer to those beside.
    """

    forbidden: frozenset[str]
    beside: frozenset[str] = frozenset()
    chosen_by: frozenset[str] = frozenset()


def names(*lines: str) -> frozenset[str]:
    return frozenset(name for line in lines for name in line.split())


ACTIVATION = names(
    "sigmoid Sigmoid sigmoid_ logsigmoid LogSigmoid expit logit softsign hardsigmoid Hardsigmoid tanh Tanh tanh_",
    "hardtanh Hardtanh hardtanh_ softplus Softplus relu ReLU relu_ relu6 ReLU6 threshold leaky_relu LeakyReLU",
    "leaky_relu_ prelu PReLU rrelu elu ELU elu_ celu CELU selu SELU selu_ silu SiLU swish gelu GELU mish Mish",
    "hardswish clamp_min clamp clip logaddexp MaxPool1d max_pool1d",
)
AFFINE = names("linear Linear LazyLinear bilinear addmm addmm_ addmv baddbmm")
DROPOUT = names("dropout Dropout dropout_ alpha_dropout AlphaDropout feature_dropout Dropout1d native_dropout")
LOSS = names(
    "softmax Softmax log_softmax LogSoftmax logsumexp logaddexp logsigmoid softplus relu sigmoid expit xlogy",
    "cross_entropy CrossEntropyLoss nll_loss NLLLoss binary_cross_entropy binary_cross_entropy_with_logits BCELoss",
    "BCEWithLogitsLoss mse_loss MSELoss l1_loss L1Loss smooth_l1_loss huber_loss multi_margin_loss MultiMarginLoss",
    "hinge_embedding_loss margin_ranking_loss multilabel_margin_loss soft_margin_loss gaussian_nll_loss kl_div",
    "GaussianNLLLoss norm vector_norm softmin",
)
SOLVER = names(
    "linalg numpy scipy sklearn lu lu_factor lu_solve lu_unpack qr geqrf ormqr cholesky cholesky_solve",
    "cholesky_inverse solve solve_triangular triangular_solve lstsq inverse inv pinverse pinv svd eigh",
)
AUTOGRAD = names("autograd grad backward requires_grad_ vjp jvp jacrev jacfwd func functional")
OPTIMIZER = names("optim SGD Adam LBFGS")

SCRATCH: dict[str, Written] = {  # every module that writes something out; a new room adds its own lines
    "layers/activations.py": Written(ACTIVATION, beside=names("TORCH_ACTIVATIONS"), chosen_by=names("activation")),
    "layers/linear.py": Written(AFFINE),
    "layers/dropout.py": Written(DROPOUT),
    "losses.py": Written(
        LOSS,
        beside=names("_torch_mae _torch_mse _torch_bce _torch_cross_entropy _torch_hinge"),
        chosen_by=names("LOSSES loss"),
    ),
    "mlp/autodiff.py": Written(names("torch jax sklearn autograd")),
    "mlp/derivatives.py": Written(names("functional func vjp jvp jacrev jacfwd gradcheck gradgradcheck approx_fprime")),
    "mlp/matrices.py": Written(AUTOGRAD | AFFINE | LOSS),
    "regression/closed_form.py": Written(
        names("lstsq solve inv pinv inverse pinverse cholesky qr sklearn scipy Ridge Lasso LinearRegression")
    ),
    "regression/descent.py": Written(
        AUTOGRAD | OPTIMIZER | LOSS | AFFINE,
        beside=names("autograd"),
        chosen_by=names("gradient_descent minibatch_descent"),
    ),
    "regression/linear.py": Written(AFFINE),
    "regression/solvers.py": Written(SOLVER),
}


def defined(statement: ast.stmt) -> set[str]:
    """The names that a top-level statement defines."""
    if isinstance(statement, ast.FunctionDef | ast.ClassDef):
        return {statement.name}
    targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
    return {target.id for target in targets if isinstance(target, ast.Name)}


def library_names(source: ast.Module) -> dict[str, tuple[str, ...]]:
    """What each imported name means, if it is not ours: {"F": ("torch", "nn", "functional")}."""
    found: dict[str, tuple[str, ...]] = {}
    for node in ast.walk(source):
        if isinstance(node, ast.Import):
            for alias in node.names:
                path = tuple(alias.name.split("."))
                found[alias.asname or path[0]] = path if alias.asname else path[:1]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            for alias in node.names:
                found[alias.asname or alias.name] = (*(node.module or "").split("."), alias.name)
    return {name: path for name, path in found.items() if path[0] != "dl_course"}


def our_modules(source: ast.Module) -> set[str]:
    """Imported names that are modules or packages of ours: their attributes are ours, too."""
    return {
        alias.asname or alias.name
        for node in ast.walk(source)
        if isinstance(node, ast.ImportFrom) and node.module == "dl_course"
        for alias in node.names
    }


def uses(part: ast.AST, source: ast.Module) -> Iterator[tuple[int, str]]:
    """(line, name) of everything in `part` that a library may provide: its imports' paths, attributes, getattr."""
    library, ours = library_names(source), our_modules(source)
    for node in ast.walk(part):
        if isinstance(node, ast.Name):
            yield from ((node.lineno, name) for name in library.get(node.id, ()))
        elif isinstance(node, ast.Attribute) and last(node.value) not in {*ours, "self"}:
            yield node.lineno, node.attr
        elif isinstance(node, ast.Call) and last(node.func) == "getattr" and len(node.args) > 1:
            yield node.lineno, str(getattr(node.args[1], "value", ""))


def borrowed(source: ast.Module, rule: Written) -> list[str]:
    """Where a module uses what it should write out, directly or by a definition that stands beside."""
    problems = []
    elsewhere = {name for other in SCRATCH.values() if other != rule for name in other.beside | other.chosen_by}
    for statement in source.body:
        if isinstance(statement, ast.ImportFrom) and (statement.module or "").startswith("dl_course"):
            taken = {alias.name for alias in statement.names} & elsewhere
            problems += [f"line {statement.lineno} imports {name}" for name in taken]
        if isinstance(statement, ast.Import | ast.ImportFrom) or defined(statement) & rule.beside:
            continue
        problems += [f"line {line} uses {name}" for line, name in uses(statement, source) if name in rule.forbidden]
        if not defined(statement) & rule.chosen_by:
            words = {node.id for node in ast.walk(statement) if isinstance(node, ast.Name)}
            problems += [f"line {statement.lineno} leads to {name}" for name in words & rule.beside]
    return problems


def rule_of(module: str) -> Written:
    return SCRATCH[module.removeprefix("dl_course.").replace(".", "/") + ".py"]


@pytest.mark.parametrize("module", SCRATCH)
def test_scratch_means_scratch(module: str):
    """What is written out does not call the operation that it is compared with, nor a thin relative of it."""
    assert borrowed(tree(ROOT / "dl_course" / module), SCRATCH[module]) == []


@pytest.mark.parametrize("module", SCRATCH)
def test_what_stands_beside_exists(module: str):
    """An exemption that exempts nothing is a mistake in the table."""
    source, rule = tree(ROOT / "dl_course" / module), SCRATCH[module]
    assert rule.beside | rule.chosen_by <= {name for statement in source.body for name in defined(statement)}


def test_every_written_out_twin_is_in_the_table():
    """The modules behind impl=scratch, and every layer, are held to a rule."""
    twins: Iterable[object] = [*activations.ACTIVATIONS.values(), *(loss.scratch for loss in LOSSES.values())]
    for twin in twins:
        assert rule_of(getattr(twin, "__module__", "")).forbidden
    layers = {str(p.relative_to("dl_course")) for p in PACKAGE if p.parent.name == "layers" and p.stem != "__init__"}
    assert layers <= set(SCRATCH)


@pytest.mark.parametrize(
    "body",
    [
        "import torch\ndef f(x): return torch.relu(x)",
        "import torch.nn.functional as F\ndef f(x): return F.relu(x)",
        "import torch.nn.functional\ndef f(x): return torch.nn.functional.relu(x)",
        "from torch import relu as g\ndef f(x): return g(x)",
        "from torch import nn\nclass A(nn.ReLU): pass",
        "def f(x): return x.relu()",
        "import torch\ndef f(x): return torch.ops.aten.relu(x)",
        "import torch\ndef f(x): return getattr(torch, 'relu')(x)",
        "import torch\nTABLE = {'relu': torch.relu}",
        "def twin(x): return x.relu()\ndef f(x): return twin(x)",
        "from dl_course.losses import LOSSES",
    ],
)
def test_borrowed_operations_are_seen(body: str):
    assert borrowed(ast.parse(body), Written(ACTIVATION, beside=names("twin")))


def test_our_own_of_the_same_name_is_no_loan():
    body = "from dl_course.layers.activations import relu\nfrom dl_course import layers\ndef f(x): return relu(x)"
    assert borrowed(ast.parse(body + "\ndef relu6(x): return layers.relu(x)"), Written(ACTIVATION)) == []


# --- never unsafe

PICKLES = {"pickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
CALLS = {"eval", "exec", "yaml.unsafe_load", "yaml.full_load", "load_from_checkpoint", "load_state_dict_from_url"}


def unsafe(source: ast.AST) -> list[str]:
    """Calls that may run code from a file: pickles in every disguise, eval and exec."""
    problems = []
    for node in ast.walk(source):
        if isinstance(node, ast.Import | ast.ImportFrom):
            roots = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            problems += [f"line {node.lineno} imports {r}" for r in roots if r.split(".")[0] in PICKLES]
        elif isinstance(node, ast.Call):
            given = {k.arg: k.value.value for k in node.keywords if isinstance(k.value, ast.Constant)}
            called = ast.unparse(node.func)
            if given.get("weights_only", True) is not True or given.get("allow_pickle", False) is not False:
                problems.append(f"line {node.lineno}: {ast.unparse(node)}")
            elif called == "torch.load" and given.get("weights_only") is not True:
                problems.append(f"line {node.lineno}: torch.load without weights_only=True")
            elif called in CALLS or last(node.func) in CALLS - {"eval"} or called.startswith("torch.hub."):
                problems.append(f"line {node.lineno} calls {called}")
    return problems


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_nothing_loads_unsafely(path: Path):
    assert unsafe(tree(ROOT / path)) == []


@pytest.mark.parametrize(
    "line",
    [
        "torch.load(p)",
        "torch.load(p, weights_only=False)",
        "trainer.fit(t, weights_only=None)",
        "numpy.load(p, allow_pickle=True)",
        "import pickle",
        "from pickle import load",
        "eval(text)",
        "torch.hub.load(repo, name)",
    ],
)
def test_unsafe_loading_is_seen(line: str):
    assert unsafe(ast.parse(line))


# --- readable


@pytest.mark.parametrize("path", [p for p in PACKAGE if p.name != "__main__.py"], ids=str)
def test_what_is_public_says_what_it_is(path: Path):
    """Every module, and every public class and function at its top level, has a docstring."""
    source = tree(ROOT / path)
    public = [s for s in source.body if isinstance(s, ast.FunctionDef | ast.ClassDef) and not s.name.startswith("_")]
    assert ast.get_docstring(source), "a module begins with what it is about"
    assert [s.name for s in public if not ast.get_docstring(s)] == []


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_a_module_is_read_in_one_sitting(path: Path):
    assert len((ROOT / path).read_text(encoding="utf-8").splitlines()) <= MAX_LINES


def test_every_lecture_room_has_tests():
    """tests/ mirrors the rooms."""
    assert {name for name in TOPICS | SHARED if not list((ROOT / "tests" / name).glob("test_*.py"))} == set()
