"""What widths cost: formulas over the layer calls of a network, and the devices whose time is told.

In: one layer call and how wide it is (`CallWidths`). Out: a number, in FLOPs, parameters, bytes or milliseconds.
Knows nothing of how channels are found.
"""
