"""Small models: one thread is fastest, and stays so beside other work."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
