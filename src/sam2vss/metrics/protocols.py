"""The published ways to turn the same counts into scores.

Sources: paper Eq. 4 (`paper`); VSPW_baseline's scripts (`vspw`); VSS-CFFM's VC_perclip.py (`cffm`); DVIS_Plus'
eval_vc_vspw.py (`dvis-compat`). `strict` is Eq. 4 read so that a prediction has to be right.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, get_args

from ..errors import SettingsError
from .consistency import CORRECT, LABELLED, MERGED, MERGED_KEPT, STABLE, STABLE_KEPT

ProtocolName = Literal["vspw", "cffm", "paper", "strict", "dvis-compat"]


@dataclass(frozen=True)
class Protocol:
    """How one source turns counts into scores.

    Attributes:
        common: Column of the window counts that VC divides by.
        kept: Column of the window counts that VC divides.
        drop_last_window: Whether the last window of every clip is left out (the scripts loop over T-n starts).
        min_frames: Shorter clips are left out of every score.
        pools_shorter_windows: Whether mVC_n averages over the windows of all counted lengths up to n.
        fault: What is wrong with the protocol, a sentence to print with its scores; "" if nothing is.
    """

    common: int
    kept: int
    drop_last_window: bool
    min_frames: int = 1
    pools_shorter_windows: bool = False
    fault: str = ""

    @property
    def is_faulty(self) -> bool:
        """Whether its scores repeat a known mistake and should only be compared with scores that share it."""
        return bool(self.fault)


PROTOCOLS: Final[Mapping[ProtocolName, Protocol]] = {
    "vspw": Protocol(STABLE, STABLE_KEPT, drop_last_window=True),
    "cffm": Protocol(MERGED, MERGED_KEPT, drop_last_window=True, min_frames=17),
    "paper": Protocol(MERGED, MERGED_KEPT, drop_last_window=False),
    "strict": Protocol(LABELLED, CORRECT, drop_last_window=False),
    "dvis-compat": Protocol(
        STABLE,
        STABLE_KEPT,
        drop_last_window=True,
        pools_shorter_windows=True,
        fault=(
            "Protocol dvis-compat repeats a mistake of DVIS_Plus' eval_vc_vspw.py: every mVC but the shortest also "
            "averages over the shorter windows (its mVC16 is the mean over windows of 8 and of 16 frames), so it "
            "compares only with numbers from that script."
        ),
    ),
}


def find_protocol(name: str) -> Protocol:
    """Return the protocol of that name.

    Raises:
        SettingsError: If there is none.
    """
    for known, protocol in PROTOCOLS.items():
        if known == name:
            return protocol
    raise SettingsError(f"unknown protocol {name!r}; choose one of {', '.join(get_args(ProtocolName))}")
