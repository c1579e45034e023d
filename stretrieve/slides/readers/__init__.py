"""Decoders of slide files. They run in a reader process only, never in the process of the user."""
