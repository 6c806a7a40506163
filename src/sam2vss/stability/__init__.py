"""How steady stored labels are, without ground truth: folders and runs side by side.

None of these scores knows what is right: labels that never change score best. They belong beside scores against ground
truth wherever there is any.

    sets = find_label_sets(Path("runs/drive"), label_space)          # base and refined labels of a run
    found = measure_stability(sets, flow=FlowMethod("raft", my_raft))
    found.sets[1].differences["flow_consistency_raft"]
"""

from .flows import DIS, FlowFunction, FlowMethod, find_flow_method
from .measure import measure_stability
from .results import CAUTION, SetStability, Stability, differences_table, stability_table
from .sets import LabelSet, find_label_sets

__all__ = [
    "CAUTION",
    "DIS",
    "FlowFunction",
    "FlowMethod",
    "LabelSet",
    "SetStability",
    "Stability",
    "differences_table",
    "find_flow_method",
    "find_label_sets",
    "measure_stability",
    "stability_table",
]
