"""The self-contained HTML page about a board: `page.py` puts it together from `figures.py` and `details.py`."""

from .page import render_page, write_board_page

__all__ = ["render_page", "write_board_page"]
