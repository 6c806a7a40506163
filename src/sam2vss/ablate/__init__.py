"""Ablations: many settings of the refiner on the same clips, the network run once per what really changes.

`grid.py` says which settings, `sweep.py` goes through a clip with all of them at once, `shared_tracks.py` and
`frame_cache.py` hold what they share, `run.py` does all clips and makes a `Scoreboard`.
"""
