"""Networks, losses and joint spaces."""

import os

# A network's activations are allocated anew in every layer. On Linux, half of the time of a small one
# goes into that, 4 KiB at a time, unless torch asks for pages of 2 MiB; it does if told before its
# first tensor. Results are the same to the bit.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
