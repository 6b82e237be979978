"""One thread a test process: several processes with several threads each wait for one another more than they work."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
