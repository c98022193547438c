"""No test asserts a time: machines are shared and noisy. BLAS keeps to one thread, as elsewhere."""

import os

os.environ["OMP_NUM_THREADS"] = "1"          # before NumPy loads: threads fight on a busy machine

from hypothesis import settings     # noqa: E402

settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")
