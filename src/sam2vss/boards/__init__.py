"""Boards: scores of several sets of labels side by side, and everything that shows them.

`scoreboard` holds the data. `tables`, `latex`, `plots` and `page` show it, `writing` writes it all into a folder,
`results_page` joins several boards, and `published` holds figures that were copied from papers.
"""

from .scoreboard import Axis, BoardRow, Picture, Published, Scoreboard

__all__ = ["Axis", "BoardRow", "Picture", "Published", "Scoreboard"]
