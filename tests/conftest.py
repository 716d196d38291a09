"""One thread for all tests: the tensors are small, and threads that wait for each other cost more."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
