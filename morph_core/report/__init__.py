"""What a search found, as pages and pictures for people.

In: a `Structure`, or several of them with their accuracies (`frontier`). Out: one HTML page, SVG files, a model card.
"""

from .card import card
from .figures import pictures
from .page import html

__all__ = ["card", "html", "pictures"]
