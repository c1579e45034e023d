"""Networks, losses and joint spaces."""

import os

# A network's activations are allocated anew in every layer, and much of a small one's time goes into
# that, 4 KiB at a time, unless torch asks Linux for pages of 2 MiB; it does if told before its first
# tensor. Results are the same to the bit.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
