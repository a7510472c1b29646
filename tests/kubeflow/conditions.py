"""The conditions of tasks, which Kubeflow's driver evaluates: the part of CEL that TFX's compiler writes.

Comparisons, `&&`, `||`, `!(...)`, arithmetic, literals, and paths into the ExecutorInput such as
`inputs.artifacts['blessing'].artifacts[0].metadata['blessed']`. With the operators spelled otherwise this is also an
expression of Python's grammar, so Python's parser reads it; nothing is handed to Python to be executed.
"""

from __future__ import annotations

import ast
import operator
import re
from typing import Any

from google.protobuf import json_format

_COMPARE = {
    ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}  # fmt: skip
_COMPUTE = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}


class ConditionError(Exception):
    """The driver would fail: the expression does not parse, has no value here, or not one of true and false."""


def holds(condition: str, invocation: Any) -> bool:
    """Whether a task with this ExecutorInput runs."""
    variables = json_format.MessageToDict(invocation, preserving_proto_field_name=True)
    spelled = re.sub(r"!(?!=)", " not ", condition.replace("&&", " and ").replace("||", " or "))
    try:
        value = _value(ast.parse(spelled.strip(), mode="eval").body, variables)
    except (SyntaxError, KeyError, IndexError, TypeError) as error:
        raise ConditionError(f"evaluation error in {condition!r}: {error!r}") from error
    if not isinstance(value, bool):
        raise ConditionError(f"evaluation error: return type is not bool, got {value!r}")
    return value


def _value(node: ast.expr, variables: dict[str, Any]) -> Any:
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.Name):
        return {"true": True, "false": False, **variables}[node.id]
    if isinstance(node, ast.Attribute):
        return _value(node.value, variables)[node.attr]
    if isinstance(node, ast.Subscript):
        return _value(node.value, variables)[_value(node.slice, variables)]
    if isinstance(node, ast.BoolOp):
        values = [_value(part, variables) for part in node.values]
        return all(values) if isinstance(node.op, ast.And) else any(values)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        return not _value(node.operand, variables)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_value(node.operand, variables)
    if isinstance(node, ast.Compare) and len(node.ops) == 1:
        left, right = _value(node.left, variables), _value(node.comparators[0], variables)
        return _COMPARE[type(node.ops[0])](left, right)
    if isinstance(node, ast.BinOp):
        return _COMPUTE[type(node.op)](_value(node.left, variables), _value(node.right, variables))
    raise ConditionError(f"{ast.unparse(node)} is not among what TFX compiles conditions to")
