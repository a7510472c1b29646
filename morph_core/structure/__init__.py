"""Widths as a value, and what is made of them.

In: a `ChannelGraph`, scores of its channels, a budget. Out: a `Structure` within the budget, the JSON file of it, and
the network rebuilt from it.
"""
