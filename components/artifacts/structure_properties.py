"""What the custom properties of an artifact say of a structure: what was asked of the search, and what came of it."""

import morph_core as morph

from .calibration import LATENCY


def goal_properties(structure: morph.Structure) -> dict[str, str | float]:
    """What was asked of the search, as flat names: `cost`, `target` (or `budget`, `strength`), `gate`, `expand_to`.

    With several costs they are `target_flops`, `target_params`, and so on.
    """
    properties: dict[str, str | float] = {}
    for name, value in structure.goal.items():
        if isinstance(value, dict):
            properties |= {f"{name}_{cost}": float(amount) for cost, amount in value.items()}
        elif value is not None:
            properties[name] = value if isinstance(value, str) else float(value)
    if "gate" in structure.settings:
        properties["gate"] = str(structure.settings["gate"])
    expanded_to = structure.settings.get("expanded_to")
    if expanded_to is not None:
        # The executor expands to the same fraction of every cost.
        properties["expand_to"] = float(min(expanded_to.values()) if isinstance(expanded_to, dict) else expanded_to)
    return properties


def cost_properties(structure: morph.Structure) -> dict[str, float]:
    """The costs of seed and structure as flat names: `flops_seed`, `flops_structure`, `flops_fraction`, and so on."""
    properties = {}
    for name, cost in structure.costs.items():
        properties[f"{name}_seed"] = float(cost["seed"])
        properties[f"{name}_structure"] = float(cost["structure"])
        properties[f"{name}_fraction"] = float(cost["structure"] / cost["seed"])
    return properties


def counted_as(cost: str, structure: morph.Structure) -> str:
    """The name under which a structure has counted a cost; of "latency" by itself, that of its one device.

    Raises:
        MorphError: there is no such cost.
    """
    if cost != LATENCY:
        return morph.cost_of(cost).name
    found = [name for name in structure.costs if name.startswith(f"{LATENCY}:")]
    return found[0] if len(found) == 1 else LATENCY
