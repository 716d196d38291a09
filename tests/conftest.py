"""One thread for all tests: on small tensors, threads that wait for each other cost more."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
