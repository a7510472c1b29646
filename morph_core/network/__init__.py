"""Which channels a network has: its layer calls, the labels of their channels, and what can go with what.

In: a Keras model. Out: a `ChannelGraph`, whose groups are the widths that can be learned, with gates that close a
channel exactly as if it were not there.
"""
