"""The error tree: everything a user can cause derives from `Sam2VssError`.

The command line prints these as one message with exit code 2; a traceback is shown for our own bugs only.
Messages say what was found, what was expected and what to do.
"""


class Sam2VssError(Exception):
    """Base class of every error that a caller or user can cause."""


class ShapeError(Sam2VssError):
    """Arrays that belong together do not fit together."""


class LabelError(Sam2VssError):
    """Label values, label files or label sets that cannot be used as they are."""


class MediaError(Sam2VssError):
    """A video or image source that cannot be read or written."""


class WeightsError(Sam2VssError):
    """Model weights that cannot be found, reached or understood."""


class SettingsError(Sam2VssError):
    """Options that contradict one another or do not fit the input."""


class RunError(Sam2VssError):
    """A run folder that cannot be created, resumed or read."""


class MissingPredictionsError(Sam2VssError):
    """An evaluation set and its predictions do not cover the same frames."""
