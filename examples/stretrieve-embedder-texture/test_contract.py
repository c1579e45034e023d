"""The contract that every embedder keeps, run on this one."""

from stretrieve.testing.embedders import EmbedderContract


class TestTexture(EmbedderContract):
    name = "texture"
