"""The ranges of UnityEyes' eyes that fit MPIIGaze's unlabelled images (docs/simulator_fit.md).

Found by `simgan fit` in two rounds, renders made anew in between, on the store `real` of the mini data: no label of a
real image was read. The yaw of angle kappa was set last: such that gaze CNNs trained on the renders give the unlabelled
eyes the prior's mean yaw, which all 14 other persons share within half a degree. What neither touches is as in
`EyeRanges`. The procedural eyes of the embedded data keep the plain ranges: their target is another rendering.
"""

from __future__ import annotations

from simgan_core.simulators.ranges import EyeRanges

MPIIGAZE_RANGES = EyeRanges(
    head_follow=0.39,
    head_pitch_normal_deg=(-3.85, 4.25),
    head_yaw_normal_deg=(-3.5, 3.27),
    head_roll_normal_deg=(0.0, 1.26),
    shape_scale=0.394,
    lid_open_normal_deg=(-3.64, 2.17),
    lid_gain=(0.48, 0.88),
    # towards the temple, as anatomy has it; the moments of landmarks alone said -4.1
    kappa_pitch_normal_deg=(0.49, 1.0),
    kappa_yaw_normal_deg=(-2.1, 1.5),
    field_width_normal_mm=(34.36, 0.73),
    shift_x_normal_mm=(1.27, 0.625),
    shift_y_normal_mm=(-0.89, 0.42),
)
