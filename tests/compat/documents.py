"""Where the examples stand in the documents of PyFlowReg, and how deep their lines were indented.

The documents are text without indentation, beside the repository; nothing of them is kept here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Example:
    """Lines of a document that are one example.

    Attributes
    ----------
    first, last : int
        Lines, counted from 1.
    depth : dict of int to int
        Indentation from a line on; 0 before the first of them.
    needs : str
        What it takes longer for, or cannot do without: ``processes``, ``torch`` or ``live``.
    """

    first: int
    last: int
    depth: dict[int, int] = field(default_factory=dict)
    needs: str = ""

    def code(self, lines: list[str]) -> str:
        """Return the example with its indentation and the prefix of our imports."""
        depth, out = 0, []
        for number in range(self.first, self.last + 1):
            depth = self.depth.get(number, depth)
            out.append("    " * depth + lines[number - 1])
        return "\n".join(out).replace("from pyflowreg", "from scopeflow.compat.pyflowreg")


PARALLELIZATION = [
    Example(6, 9),
    Example(23, 26),
    Example(40, 43),
    Example(57, 58, needs="processes"),
    Example(60, 60),
    Example(65, 69),
    Example(72, 79),
    Example(81, 86),
    Example(89, 93, {91: 1}),
    Example(95, 101),
    Example(107, 111),
    Example(122, 134, needs="processes"),
    Example(138, 139, needs="processes"),
    Example(145, 152),
    Example(154, 161),
    Example(168, 170),
    Example(173, 175),
    Example(177, 179),
    Example(182, 189),
    Example(191, 201, needs="processes"),
    Example(203, 213),
    Example(216, 219),
    Example(228, 233),
    Example(242, 250),
    Example(258, 261),
]
WORKFLOWS = [
    Example(11, 24),
    Example(28, 37),
    Example(62, 80, {63: 1, 65: 2, 69: 0, 70: 1, 73: 0}),
    Example(83, 105, {84: 1, 85: 2, 86: 1, 87: 2, 96: 0}),
    Example(109, 120, needs="processes"),
    Example(125, 138, needs="processes"),
    Example(147, 160, {158: 1}, needs="live"),
    Example(163, 167, needs="live"),
    Example(
        175,
        219,
        {179: 1, 181: 2, 183: 1, 184: 2, 192: 1, 193: 2, 198: 1, 199: 2, 213: 0},
    ),
    Example(223, 232),
    Example(237, 251, {240: 1, 241: 2, 244: 1, 245: 2, 247: 1, 248: 2, 249: 3}),
    Example(288, 309, {290: 1, 292: 0, 294: 1, 301: 0, 303: 1}),
    Example(311, 318),
]
SESSION = [
    Example(11, 11),
    Example(31, 31),
    Example(33, 33),
    Example(35, 35),
    Example(58, 58),
    Example(68, 78),
    Example(80, 80),
    Example(91, 94),
    Example(98, 98),
    Example(112, 117, needs="torch"),
    Example(120, 120),
    Example(132, 134),
    Example(157, 161),
    Example(170, 170),
    Example(174, 174),
    Example(177, 179),
    Example(181, 216),
]
SESSION_TOML = (37, 55)
DOCUMENTS = {
    "pyflowreg_parallelization": PARALLELIZATION,
    "pyflowreg_workflows": WORKFLOWS,
    "pyflowreg_session_api": SESSION,
}


def read_lines(folder: Path, name: str) -> list[str]:
    """Return the lines of a document."""
    return (folder / f"{name}.txt").read_text(encoding="utf-8").splitlines()
