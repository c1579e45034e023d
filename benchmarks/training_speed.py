"""One training step and one embedding pass of each embedder against a plain PyTorch loop.

    python benchmarks/training_speed.py speed
    python benchmarks/training_speed.py memory

``speed``: for every embedder the loop's step (gathering the batch, augmentation, loss, gradients,
clipping, AdamW) and the same network in a bare loop (tensors at hand, no augmentation) alternate in
one process; the medians are compared. Steps that train heads only are also timed at the loop's own
batch size. So do ``encode_patches`` with ``project_patches`` and the bare
forward pass. Towers are trained where the method trains one, so that pixels are part of the step.

``memory``: peak memory of one step by batch size, each in a process of its own, encoded whole and in
parts of 8 (GradCache). Weights are random throughout: times do not depend on them.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stretrieve._progress import SILENT
from stretrieve.embedders import Embedder, SectionPatches, create_embedder
from stretrieve.models.m2ost import PUBLISHED_FLOPS, PUBLISHED_PARAMETERS, M2ost, M2ostSettings
from stretrieve.models.m2ost_tools import count_parameters, m2ost_flops
from stretrieve.testing.toy import toy_batch, toy_section
from stretrieve.training import TrainSettings
from stretrieve.training.batches import TrainingData
from stretrieve.training.parallel import World
from stretrieve.training.phase import PhaseRunner
from stretrieve.training.step import Arithmetic

TOWER_BATCH = 16
HEAD_BATCH = TrainSettings().batch_size
SPOTS_PER_BATCH = 4
REPEATS = 15
UNSEEN = np.random.default_rng(0)
TOWER = MappingProxyType({"encoder": {"backbone": "mobilenetv2_100"}, "patch_px": 112})
LINEAR = MappingProxyType({**TOWER, "head": "linear"})
TRAINED = MappingProxyType({**TOWER, "backbone_stages": -1})
CASES: Mapping[str, tuple[str, Mapping[str, Any]]] = MappingProxyType(
    {
        "bleep, tower trained": ("bleep", TRAINED),
        "stgchb, tower trained": ("stgchb", {**TRAINED, "infomax": {"epochs": 0}}),
        "mclstexp, tower trained": ("mclstexp", TRAINED),
        "m2ost, depth 2": ("m2ost", {"patch_px": 112, "network": {"depth": 2}}),
        "bleep, frozen tower": ("bleep", TOWER),
        "frozen, linear head": ("frozen", LINEAR),
        "colour": ("colour", {}),
    }
)


class Case:
    """An embedder, a section, and the two ways to take a step and to embed."""

    def __init__(
        self,
        name: str,
        config: Mapping[str, Any],
        *,
        batch: int = TOWER_BATCH,
        micro_batch: int = 0,
    ) -> None:
        self.batch = batch
        self.n_spots = SPOTS_PER_BATCH * batch
        self.embedder: Embedder = create_embedder(name, config)
        section = {"section": "s", "patient": "p", "n_spots": self.n_spots, "n_genes": 1000}
        self.patches: SectionPatches = toy_section(self.embedder.spec, **section)
        self.embedder.fit([self.patches])
        self.number = 0
        if getattr(self.embedder, "wants_training", False):
            settings = TrainSettings(batch_size=batch, micro_batch=micro_batch, device="cpu")
            self.data = TrainingData.collect(
                self.embedder, [self.patches], augment=settings.augment, seed=0
            )
            arithmetic, world = Arithmetic(torch.device("cpu")), World()
            self.runner = PhaseRunner(
                self.embedder, settings, "", None,
                world=world, arithmetic=arithmetic, progress=SILENT,
            )  # fmt: skip
            self.optimiser = self.runner._optimiser()  # noqa: SLF001
            self.embedder.train_mode(training=True)

    @property
    def is_trained(self) -> bool:
        """Whether there is a step to time."""
        return hasattr(self, "runner")

    def rows(self, size: int) -> np.ndarray:
        """Return the next rows of the section."""
        self.number += 1
        return (np.arange(size) + self.number) % self.n_spots

    def step(self, size: int = 0) -> None:
        """Take one step as the training loop does."""
        size = size or self.batch
        rows = self.rows(size)
        spots = np.stack([np.zeros(size, np.int64), rows], axis=1)
        self.runner._step(self.data, self.optimiser, spots, epoch=1, number=self.number)  # noqa: SLF001

    def plain_step(self) -> None:
        """Take one step in a bare loop."""
        rows = torch.from_numpy(self.rows(self.batch))
        inputs = {name: values[rows] for name, values in self.data.inputs[0].items()}
        pixels = self.patches.views if self.embedder.trains_pixels else ()
        views = tuple(torch.from_numpy(view[rows.numpy()]) for view in pixels)
        self.optimiser.zero_grad()
        loss = self.embedder.loss(plain_outputs(self.embedder, inputs, views, rows))
        loss.backward()
        parameters = [p for group in self.optimiser.param_groups for p in group["params"]]
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        self.optimiser.step()

    def fresh(self) -> Any:
        """Return a batch of patches that no memo has seen."""
        batch = toy_batch(self.patches, self.rows(self.batch))
        for view in batch.views:
            view[:, 0, 0] = UNSEEN.integers(0, 255, (self.batch, 3))
        return batch

    @torch.no_grad()
    def embed(self) -> None:
        """Embed a batch through the embedder."""
        self.embedder.embed_patches(self.fresh())

    @torch.no_grad()
    def plain_embed(self) -> None:
        """Embed a batch by calling the network."""
        batch = self.fresh()
        if not hasattr(self.embedder, "model"):
            from stretrieve.models.colour import colour_statistics

            self.embedder.joint.embed_features(colour_statistics(batch.views[0]))
            return
        model = self.embedder.model
        views = [torch.from_numpy(view) for view in batch.views]
        features = model.image_encoder.network(_pixels(model.image_encoder, views))
        if self.embedder.name == "stgchb":
            features = model.scale_features(features)
        model.project_image(features).numpy()


def _pixels(encoder: Any, views: Any) -> Any:
    std = getattr(encoder, "std", 1.0)
    images = [(v.permute(0, 3, 1, 2).float() / 255 - encoder.mean) / std for v in views]
    return images if encoder.__class__.__name__ == "M2ostEncoder" else images[0]


def plain_outputs(
    embedder: Any, inputs: Mapping[str, Tensor], views: tuple[Tensor, ...], rows: Tensor
) -> dict[str, Tensor]:
    """Return what the loss reads, straight from the modules."""
    model, expression = embedder.model, inputs["expression"]
    if embedder.trains_pixels:
        features = model.image_encoder.network(_pixels(model.image_encoder, views))
    else:
        features = inputs["features"]
    if embedder.name == "stgchb":
        own = model.scale_features(features)
        gathered = inputs["features"] + inputs["own_weight"] * (own - inputs["own_features"])
        codes = model.image_gcn(gathered), model.expression_gcn(expression)
        return {
            "image": model.image_projection(codes[0]),
            "expression": model.expression_projection(codes[1]),
            "image_codes": codes[0],
            "expression_codes": codes[1],
            "image_inputs": own,
            "expression_inputs": inputs["own_expression"],
            "image_features": gathered,
            "expression_features": expression,
        }
    scaled = model.scale_features(features)
    spots = expression
    if embedder.name == "mclstexp":
        spots = model.section_codes(*embedder._sections[0])[rows]  # noqa: SLF001
    return {
        "image": model.image_projection(scaled),
        "expression": model.expression_projection(spots),
        "image_features": scaled.detach(),
        "expression_features": expression,
        "features": scaled.detach(),
        "measured": expression,
    }


def ratio(ours: Callable[[], None], plain: Callable[[], None]) -> tuple[float, float]:
    """Return our median seconds and their ratio to the bare loop's, run in turns."""
    seconds: dict[Callable[[], None], list[float]] = {ours: [], plain: []}
    for number in range(REPEATS + 1):
        for run in (ours, plain):
            start = time.perf_counter()
            run()
            if number:
                seconds[run].append(time.perf_counter() - start)
    mine, theirs = (statistics.median(seconds[run]) for run in (ours, plain))
    return mine, mine / theirs


def speed() -> str:
    """Return the table of steps and passes."""
    lines = [
        "| embedder | batch | step, patches/s | step / bare loop | embedding, patches/s | / bare pass |",
        "|---|---|---|---|---|---|",
    ]
    for label, (name, config) in CASES.items():
        heads_only = config in (TOWER, LINEAR)
        for batch in (TOWER_BATCH, HEAD_BATCH) if heads_only else (TOWER_BATCH,):
            lines.append(f"| {label} | {batch} | {measured(Case(name, config, batch=batch))} |")
            print(lines[-1], file=sys.stderr, flush=True)
    return "\n".join(lines)


def measured(case: Case) -> str:
    """Return the four cells of an embedder's row."""
    cells = ["–", "–"]
    if case.is_trained:
        seconds, over = ratio(case.step, case.plain_step)
        cells = [f"{case.batch / seconds:.1f}", f"{over:.2f}"]
        case.embedder.train_mode(training=False)
    seconds, over = ratio(case.embed, case.plain_embed)
    return " | ".join([*cells, f"{case.batch / seconds:.1f}", f"{over:.2f}"])


def network_sizes() -> str:
    """Return M2OST's parameters and operations beside the paper's."""
    lines = ["| M2OST | parameters | GFLOPs | multiply-adds |", "|---|---|---|---|"]
    for n_levels in (1, 2, 3, 4):
        settings = M2ostSettings(n_levels=n_levels)
        flops = m2ost_flops(settings, n_outputs=250)
        head = (settings.dim + 1) * 250
        parameters = count_parameters(M2ost(settings)) + head
        lines.append(
            f"| depth 4, {n_levels} levels, 250 genes | {parameters / 1e6:.2f} M "
            f"| {flops / 1e9:.2f} | {flops / 2e9:.2f} G |"
        )
    paper = f"{PUBLISHED_PARAMETERS / 1e6:.2f} M | {PUBLISHED_FLOPS / 1e9:.2f}"
    lines.append(f"| as the paper states, 3 levels | {paper} | – |")
    return "\n".join(lines)


def memory() -> str:
    """Return peak memory of one step by batch size."""
    sizes = (8, 32, 64)
    lines = [
        "| batch | " + " | ".join(f"{size}" for size in sizes) + " |",
        "|---|" + "---|" * len(sizes),
    ]
    for micro_batch in (0, 8):
        cells = []
        for size in sizes:
            command = [sys.executable, __file__, "peak", str(size), str(micro_batch)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            cells.append(f"{float(done.stdout):.0f} MiB")
        what = f"parts of {micro_batch}" if micro_batch else "encoded whole"
        lines.append(f"| {what} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def peak(size: int, micro_batch: int) -> float:
    """Return by how many MiB one step of ``bleep`` raises the peak."""
    case = Case("bleep", TRAINED, micro_batch=micro_batch)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    case.step(size)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("speed", "memory", "peak"))
    parser.add_argument("numbers", type=int, nargs="*")
    args = parser.parse_args()
    if args.what == "peak":
        print(peak(*args.numbers))
        return
    versions = ", ".join(f"{n} {importlib.metadata.version(n)}" for n in ("torch", "timm"))
    print(f"Python {platform.python_version()}, {versions}, {torch.get_num_threads()} threads.\n")
    print(f"{speed()}\n\n{network_sizes()}" if args.what == "speed" else memory())


if __name__ == "__main__":
    main()
