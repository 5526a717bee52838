"""SimGAN (Shrivastava et al., CVPR 2017) reproduced: simulator, refiner, gaze estimator, evidence for each claim.

Modules follow the paper's sections; `PAPER_MAP.md` in the repository maps each section, equation, table and figure
to a symbol and a notebook.
"""

__version__ = "0.1.0"
