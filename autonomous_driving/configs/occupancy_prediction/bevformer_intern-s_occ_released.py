"""As bevformer_intern-s_occ.py, with the faults that the released weights were trained with.

For evaluating those. The history is turned and shifted by CAN readings in the axes of another grid,
and the current view is shifted with it.
"""

_base_ = "bevformer_intern-s_occ.py"

model = dict(view=dict(motion="can_bus", legacy_shift=True))
