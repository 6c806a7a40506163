"""Plots of a board: gains with intervals, classes, clips, ablated settings, and consistency over n.

Colours keep their order in grey and for colour-blind readers, and every kind of row has a marker of its own. The same
board gives the same bytes. matplotlib is loaded when a plot is drawn; its global state stays as it was.
"""

from .pairs import compared_rows, gains_by_key
from .render import Plot, plot_files, render_plots, write_plots

__all__ = ["Plot", "compared_rows", "gains_by_key", "plot_files", "render_plots", "write_plots"]
