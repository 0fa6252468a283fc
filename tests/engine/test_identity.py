"""A function of a user is the same only while everything that it runs and reads is the same."""

from __future__ import annotations

import functools
import importlib
import json
import pickle
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import numpy as np
import pytest
import scipy.ndimage

from scopeflow.engine.identity import (
    NOT_IDENTIFIED,
    UnidentifiedError,
    identity,
    identity_or_reason,
)

COMMON = """
import functools
import numpy as np
"""

SAME = {
    "comments and layout": (
        "def function(frame):\n    return frame * 2\n",
        "# a comment\n\n\ndef function(frame):\n    # why\n    return (frame\n            * 2)\n",
    ),
    "documentation": (
        "def function(frame):\n    'Twice.'\n    return frame * 2\n",
        "def function(frame):\n    'Two times.'\n    return frame * 2\n",
    ),
    "a global that is not read": (
        "STEP = 1\ndef function(frame):\n    return frame * 2\n",
        "STEP = 2\ndef function(frame):\n    return frame * 2\n",
    ),
    "a function beside": (
        "def other(x):\n    return 1\ndef function(frame):\n    return frame * 2\n",
        "def other(x):\n    return 2\ndef function(frame):\n    return frame * 2\n",
    ),
}

DIFFERENT = {
    "code": (
        "def function(frame):\n    return frame + 2\n",
        "def function(frame):\n    return frame - 2\n",
    ),
    "a constant": (
        "def function(frame):\n    return frame * 2\n",
        "def function(frame):\n    return frame * 3\n",
    ),
    "the type of a constant": (
        "def function(frame):\n    return frame * 2\n",
        "def function(frame):\n    return frame * 2.0\n",
    ),
    "a text that is returned": (
        "def function(frame):\n    return 'a'\n",
        "def function(frame):\n    return 'b'\n",
    ),
    "a function inside": (
        "def function(frame):\n    return (lambda x: x + 1)(frame)\n",
        "def function(frame):\n    return (lambda x: x + 2)(frame)\n",
    ),
    "a method that is called": (
        "def function(frame):\n    return frame.mean()\n",
        "def function(frame):\n    return frame.max()\n",
    ),
    "a default": (
        "def function(frame, by=2):\n    return frame * by\n",
        "def function(frame, by=3):\n    return frame * by\n",
    ),
    "a default by name": (
        "def function(frame, *, by=2):\n    return frame * by\n",
        "def function(frame, *, by=3):\n    return frame * by\n",
    ),
    "a closure": (
        "def make(by):\n    return lambda frame: frame * by\nfunction = make(2)\n",
        "def make(by):\n    return lambda frame: frame * by\nfunction = make(3)\n",
    ),
    "an array in a closure": (
        "def make(by):\n    return lambda frame: frame * by\nfunction = make(np.arange(4))\n",
        "def make(by):\n    return lambda frame: frame * by\nfunction = make(np.arange(4) * 2)\n",
    ),
    "a partial": (
        "def by(frame, n):\n    return frame * n\nfunction = functools.partial(by, n=2)\n",
        "def by(frame, n):\n    return frame * n\nfunction = functools.partial(by, n=3)\n",
    ),
    "a partial of a partial": (
        "def by(f, a, n):\n    return f\nP = functools.partial\nfunction = P(P(by, a=1), n=2)",
        "def by(f, a, n):\n    return f\nP = functools.partial\nfunction = P(P(by, a=2), n=2)",
    ),
    "the function of a partial": (
        "def by(frame, n):\n    return frame * n\nfunction = functools.partial(by, n=2)\n",
        "def by(frame, n):\n    return frame / n\nfunction = functools.partial(by, n=2)\n",
    ),
    "a global": (
        "STEP = 1\ndef function(frame):\n    return frame * STEP\n",
        "STEP = 2\ndef function(frame):\n    return frame * STEP\n",
    ),
    "a global that a function inside reads": (
        "STEP = 1\ndef function(frame):\n    return [STEP for _ in frame]\n",
        "STEP = 2\ndef function(frame):\n    return [STEP for _ in frame]\n",
    ),
    "an entry of a global table": (
        "TABLE = {'a': [1, (2, 3)]}\ndef function(frame):\n    return TABLE['a']\n",
        "TABLE = {'a': [1, (2, 4)]}\ndef function(frame):\n    return TABLE['a']\n",
    ),
    "a global function": (
        "def helper(x):\n    return x + 1\ndef function(frame):\n    return helper(frame)\n",
        "def helper(x):\n    return x + 2\ndef function(frame):\n    return helper(frame)\n",
    ),
    "a global of a global function": (
        "N = 1\ndef helper(x):\n    return x + N\ndef function(frame):\n    return helper(frame)\n",
        "N = 2\ndef helper(x):\n    return x + N\ndef function(frame):\n    return helper(frame)\n",
    ),
    "an attribute of an object": (
        (
            "class F:\n    def __init__(self, n):\n        self.n = n\n"
            "    def __call__(self, frame):\n        return frame * self.n\nfunction = F(2)\n"
        ),
        (
            "class F:\n    def __init__(self, n):\n        self.n = n\n"
            "    def __call__(self, frame):\n        return frame * self.n\nfunction = F(3)\n"
        ),
    ),
    "an attribute in slots": (
        (
            "class F:\n    __slots__ = ('n',)\n    def __call__(self, x):\n        return self.n\n"
            "function = F()\nfunction.n = 2\n"
        ),
        (
            "class F:\n    __slots__ = ('n',)\n    def __call__(self, x):\n        return self.n\n"
            "function = F()\nfunction.n = 3\n"
        ),
    ),
    "an attribute of a class": (
        (
            "class F:\n    n = 2\n    def __call__(self, x):\n        return frame * self.n\n"
            "function = F()\n"
        ),
        (
            "class F:\n    n = 3\n    def __call__(self, x):\n        return frame * self.n\n"
            "function = F()\n"
        ),
    ),
    "a class above": (
        (
            "class A:\n    n = 2\nclass F(A):\n    def __call__(self, x):\n        return self.n\n"
            "function = F()\n"
        ),
        (
            "class A:\n    n = 3\nclass F(A):\n    def __call__(self, x):\n        return self.n\n"
            "function = F()\n"
        ),
    ),
    "a property": (
        (
            "class F:\n    @property\n    def n(self):\n        return 2\n"
            "    def __call__(self, frame):\n        return self.n\nfunction = F()\n"
        ),
        (
            "class F:\n    @property\n    def n(self):\n        return 3\n"
            "    def __call__(self, frame):\n        return self.n\nfunction = F()\n"
        ),
    ),
    "the object of a method": (
        (
            "class F:\n    def __init__(self, n):\n        self.n = n\n"
            "    def run(self, frame):\n        return frame * self.n\nfunction = F(2).run\n"
        ),
        (
            "class F:\n    def __init__(self, n):\n        self.n = n\n"
            "    def run(self, frame):\n        return frame * self.n\nfunction = F(3).run\n"
        ),
    ),
    "an attribute of a function": (
        "def function(frame):\n    return frame * function.by\nfunction.by = 2\n",
        "def function(frame):\n    return frame * function.by\nfunction.by = 3\n",
    ),
    "what a decorator wraps": (
        (
            "@functools.lru_cache\ndef table(n):\n    return n + 1\n"
            "def function(frame):\n    return table(3)\n"
        ),
        (
            "@functools.lru_cache\ndef table(n):\n    return n + 2\n"
            "def function(frame):\n    return table(3)\n"
        ),
    ),
    "a wrapper with the name of an installed function": (
        "@functools.wraps(np.median)\ndef function(frame):\n    return frame + 1\n",
        "@functools.wraps(np.median)\ndef function(frame):\n    return frame + 2\n",
    ),
    "a function that an installed one takes along": (
        "function = np.vectorize(lambda x: x + 1)\n",
        "function = np.vectorize(lambda x: x + 2)\n",
    ),
    "a method of an array": (
        "function = np.arange(3).__add__\n",
        "function = np.arange(4).__add__\n",
    ),
    "the state of random numbers": (
        "RNG = np.random.default_rng(1)\ndef function(frame):\n    return frame + RNG.normal()\n",
        "RNG = np.random.default_rng(2)\ndef function(frame):\n    return frame + RNG.normal()\n",
    ),
    "the order of a table": (
        "T = {'a': 1, 'b': 2}\ndef function(frame):\n    return list(T)\n",
        "T = {'b': 2, 'a': 1}\ndef function(frame):\n    return list(T)\n",
    ),
    "the class of a decorator": (
        (
            "class D:\n    def __init__(self, f):\n        functools.update_wrapper(self, f)\n"
            "    def __call__(self, x):\n        return 2\nfunction = D(len)\n"
        ),
        (
            "class D:\n    def __init__(self, f):\n        functools.update_wrapper(self, f)\n"
            "    def __call__(self, x):\n        return 3\nfunction = D(len)\n"
        ),
    ),
    "a method of a list of the user": (
        ("class L(list):\n    def __call__(self, x):\n        return 2\nfunction = L([1, 2])\n"),
        ("class L(list):\n    def __call__(self, x):\n        return 3\nfunction = L([1, 2])\n"),
    ),
    "a method of a number of the user": (
        (
            "class N(float):\n    def of(self):\n        return 2\nA = N(1)\n"
            "def function(x):\n    return A.of()\n"
        ),
        (
            "class N(float):\n    def of(self):\n        return 3\nA = N(1)\n"
            "def function(x):\n    return A.of()\n"
        ),
    ),
    "a method of an enum": (
        (
            "import enum\nclass E(enum.Enum):\n    A = 1\n    def of(self):\n        return 2\n"
            "K = E.A\ndef function(x):\n    return K.of()\n"
        ),
        (
            "import enum\nclass E(enum.Enum):\n    A = 1\n    def of(self):\n        return 3\n"
            "K = E.A\ndef function(x):\n    return K.of()\n"
        ),
    ),
    "a name that is only set in one": (
        "def function(frame):\n    return frame * STEP\n",
        "STEP = 2\ndef function(frame):\n    return frame * STEP\n",
    ),
}


def of_script(source: str, folder: Path) -> dict[str, str]:
    """Identity of ``function`` of a script, as a process of its own finds it."""
    script = folder / "script.py"
    script.write_text(
        COMMON
        + source
        + "\nimport json\nfrom scopeflow.engine.identity import identity\n"
        + "print(json.dumps(identity(function)))\n"
    )
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, check=True, cwd=folder
    )
    facts: dict[str, str] = json.loads(done.stdout)
    return facts


def of_source(source: str) -> dict[str, str]:
    known: dict[str, object] = {"__name__": "__main__"}
    exec(compile(COMMON + source, "<cell>", "exec"), known)
    return identity(known["function"])


@pytest.mark.parametrize("kind", SAME)
def test_what_changes_no_result_changes_no_identity(kind):
    first, second = SAME[kind]
    assert of_source(first) == of_source(second)


@pytest.mark.parametrize("kind", DIFFERENT)
def test_what_changes_results_changes_the_identity(kind):
    first, second = DIFFERENT[kind]
    assert of_source(first) == of_source(first)
    assert of_source(first) != of_source(second)


def test_processes_agree_whatever_their_order_of_sets(tmp_path):
    source = textwrap.dedent(
        """
        KNOWN = {"spam", "eggs", "ham", 3.5}
        class Scale:
            names = frozenset({"x", "y"})
            def __init__(self):
                self.table = {"low": 1, "high": np.arange(5.0)}
            def __call__(self, frame):
                return frame * 2 if "spam" in KNOWN and "z" in {"x", "y", "z"} else frame
        function = functools.partial(Scale(), n=np.float32(2))
        """
    )
    assert of_script(source, tmp_path) == of_script(source, tmp_path)


def test_a_changed_module_of_the_user_is_seen(tmp_path):
    script = "import helpers\ndef function(frame):\n    return helpers.twice(frame)\n"
    inside = "def function(frame):\n    from helpers import twice\n    return twice(frame)\n"
    whole = "import helpers\ndef function(frame):\n    return getattr(helpers, 'twice')(frame)\n"
    seen = []
    for text in ("def twice(x):\n    return 2 * x\n", "def twice(x):\n    return x + x\n"):
        (tmp_path / "helpers.py").write_text(text)
        seen.append([of_script(one, tmp_path) for one in (script, inside, whole)])
    for before, after in zip(*seen, strict=True):
        assert before != after


def test_of_a_module_only_what_is_read_counts(tmp_path):
    script = "import helpers\ndef function(frame):\n    return helpers.twice(frame)\n"
    common = "def twice(x):\n    return 2 * x\n"
    (tmp_path / "helpers.py").write_text(common)
    before = of_script(script, tmp_path)
    (tmp_path / "helpers.py").write_text(f"{common}\ndef thrice(x):\n    return 3 * x\n")
    assert of_script(script, tmp_path) == before


def test_a_module_that_a_module_imports_is_seen(tmp_path):
    inside = "def function(frame):\n    import helpers\n    return helpers.twice(frame)\n"
    (tmp_path / "helpers.py").write_text("from deeper import FACTOR\ndef twice(x): return FACTOR\n")
    (tmp_path / "deeper.py").write_text("FACTOR = 2\n")
    before = of_script(inside, tmp_path)
    (tmp_path / "deeper.py").write_text("FACTOR = 3\n")
    assert of_script(inside, tmp_path) != before


def test_installed_functions_are_known_by_name_and_version():
    facts = identity(scipy.ndimage.gaussian_filter)
    assert list(facts) == [""] or "name" in facts
    assert scipy.__version__ in str(facts)
    assert np.__version__ in str(identity(np.median))


def test_scopeflow_is_known_by_what_it_computes_not_by_where_it_stands():
    from scopeflow import get_displacement

    (fact,) = identity(get_displacement).values()
    assert get_displacement.__module__ not in fact
    assert "get_displacement" in fact
    assert "kernels" in fact


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("LOCK = threading.Lock()\ndef function(x):\n    with LOCK:\n        return x\n", "lock"),
        ("FILE = open(__file__)\ndef function(x):\n    return FILE.read()\n", "TextIOWrapper"),
        ("def function(x):\n    return eval('x + 1')\n", "eval"),
        ("def function(x):\n    return globals()['y']\n", "globals"),
        ("ITEMS = (n for n in range(3))\ndef function(x):\n    return next(ITEMS)\n", "generator"),
    ],
)
def test_what_has_no_identity_is_said(source, names):
    known = {"__name__": "__main__", "threading": threading, "__file__": __file__}
    exec(compile(source, "<cell>", "exec"), known)
    with pytest.raises(UnidentifiedError, match=names):
        identity(known["function"])
    reason = identity_or_reason(known["function"])
    assert names in reason[NOT_IDENTIFIED]
    assert reason["name"] == "function"
    if "FILE" in known:
        known["FILE"].close()


def test_what_a_package_keeps_for_itself_is_not_the_function(monkeypatch):
    source = "import os\ndef function(x):\n    return x if os.environ.get('N') else None\n"
    before = of_source(source)
    monkeypatch.setenv("N", "3")
    assert of_source(source) == before


class Lazy:
    """An object that remembers what it has computed."""

    def __init__(self, n):
        self.n = n

    @functools.cached_property
    def table(self):
        return np.arange(self.n)

    def __call__(self, frame):
        return frame * self.table[-1]


def test_what_python_and_caches_note_down_changes_nothing():
    lazy = Lazy(3)
    before = identity(lazy)
    assert lazy(2) == 4
    pickle.loads(pickle.dumps(lazy))  # notes the names of slots in the class
    assert "__slotnames__" in vars(Lazy)
    assert identity(lazy) == before != identity(Lazy(4))


def test_an_object_can_say_what_counts():
    class Logged:
        def __init__(self, log, factor):
            self.log, self.factor = log, factor

        def __dask_tokenize__(self):
            return self.factor

        def __call__(self, frame):
            return frame * self.factor

    assert identity(Logged("a", 2)) == identity(Logged("b", 2)) != identity(Logged("a", 3))


def test_an_object_that_holds_itself_ends():
    class Knot:
        def __init__(self):
            self.self = self
            self.run = self.__call__

        def __call__(self, frame):
            return frame

    assert identity(Knot()) == identity(Knot())


def test_a_reloaded_module_is_the_same(tmp_path, monkeypatch):
    (tmp_path / "of_a_lab.py").write_text("N = 2\ndef function(x):\n    return N * x\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    module = importlib.import_module("of_a_lab")
    before = identity(module.function)
    assert identity(importlib.reload(module).function) == before
    module.N = 3
    assert identity(module.function) != before
    assert identity(functools.partial(module.function)) != before
    del sys.modules["of_a_lab"]


def test_facts_name_what_changed():
    first, second = (of_source(one) for one in DIFFERENT["a global"])
    assert {place for place in first if first[place] != second[place]} == {"global STEP"}
