"""The table of gates, in which their names are known before the gates themselves are loaded, which takes Keras."""

from __future__ import annotations

import difflib
from typing import Any

from ..errors import MorphError

GATES: dict[str, Any] = dict.fromkeys(("fisher", "gamma", "group_lasso", "logistic_sigmoid"))
"""Name -> class of the gate, a `morph_core.search.gates.Gate`; that file puts the classes here."""


def check_gate(name: Any) -> None:
    """Raises MorphError unless `name` is "auto" or that of a gate."""
    known = ("auto", *sorted(GATES))
    if name not in known:
        close = difflib.get_close_matches(str(name), known, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise MorphError(f"Unknown gate {name!r}.{hint} Expected one of {', '.join(map(repr, known))}.")
