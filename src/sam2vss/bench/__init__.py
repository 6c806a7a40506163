"""Base models, controls and SAM 2 side by side on one data set: the rows of the paper's Tables 1 to 3.

`plan_bench` checks what is asked, `run_bench` makes every row as an ordinary run folder, scores it and returns a
`Scoreboard`. What is finished is not done again.

    plan.json                    what was asked, compared on resume
    base/<model>/                predictions of a model that was run
    runs/<model>/<row>/          run folder of a row over base labels: control, SAM 2, fusion, classifier
    classified/<row>/            run folder of a classifier alone
    counts/<model>/<row>.npz     counts behind the scores
    pictures/                    best and worst clips
    bench.json                   the board
"""

from .plan import BenchPlan, plan_bench
from .run import run_bench
from .tasks import ROWS, BaseModel

__all__ = ["ROWS", "BaseModel", "BenchPlan", "plan_bench", "run_bench"]
