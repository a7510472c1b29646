"""Widths learned while the network trains.

In: a Keras model and a budget. Out: a Keras model that is compiled and fitted as the seed would be, and knows a
`Structure` afterwards.
"""
