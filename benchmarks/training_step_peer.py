"""One library's training step, in an environment that has the library.

    python training_step_peer.py LIBRARY PROBLEM K THREADS DEVICE

The other side of `benchmarks.training_step`: for each name of a step on standard input it takes
one whole step, as the library's own trainer does, and answers with a line of JSON. PROBLEM holds
the initial weights and the batches.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from itertools import count, cycle

import torch
from safetensors.torch import load_file
from torch import Tensor

RATE = 1e-4
PeerStep = Callable[[], float]
"Takes one step; gives the squared error before it, summed over d, the mean over tokens."


def saelens(problem: Mapping[str, Tensor], k: int) -> dict[str, PeerStep]:
    """`SAETrainer.step` on a `TopKTrainingSAE`, by default and with sparse activations."""
    from sae_lens import TopKTrainingSAE, TopKTrainingSAEConfig
    from sae_lens.config import SAETrainerConfig
    from sae_lens.training.sae_trainer import SAETrainer

    features, d = problem["W_enc"].shape
    tokens = problem["x"].shape[1]

    def make(*, sparse: bool) -> PeerStep:
        # Sparse activations scaled by decoder norms have no backward pass in torch 2.13.
        config = TopKTrainingSAEConfig(
            d_in=d,
            d_sae=features,
            k=k,
            device=str(problem["x"].device),
            use_sparse_activations=sparse,
            rescale_acts_by_decoder_norm=not sparse,
        )
        sae = TopKTrainingSAE(config)
        sae.W_enc.data = problem["W_enc"].T.clone(memory_format=torch.contiguous_format)
        sae.W_dec.data = problem["W_dec"].clone()
        plan = SAETrainerConfig(
            total_training_samples=10**9,
            train_batch_size_samples=tokens,
            lr=RATE,
            lr_end=RATE,
            device=str(problem["x"].device),
        )
        trainer = SAETrainer(plan, sae, iter(()))
        batches = cycle(problem["x"])

        def step() -> float:
            output = trainer.step(next(batches))
            trainer.n_training_steps += 1
            return output.losses["mse_loss"].item()

        return step

    return {"SAELens": make(sparse=False), "SAELens, sparse activations": make(sparse=True)}


def dictionary_learning(problem: Mapping[str, Tensor], k: int) -> dict[str, PeerStep]:
    """`TopKTrainer.update`, past the 1,000 steps after which it also tracks a threshold."""
    from dictionary_learning.trainers.top_k import TopKTrainer

    features, d = problem["W_enc"].shape
    trainer = TopKTrainer(
        steps=10**6,
        activation_dim=d,
        dict_size=features,
        k=k,
        layer=0,
        lm_name="none",
        lr=RATE,
        warmup_steps=0,
        device=str(problem["x"].device),
    )
    trainer.ae.encoder.weight.data = problem["W_enc"].clone()
    trainer.ae.decoder.weight.data = problem["W_dec"].T.clone(memory_format=torch.contiguous_format)
    steps, batches = count(trainer.threshold_start_step + 1), cycle(problem["x"])
    return {"dictionary_learning": lambda: trainer.update(next(steps), next(batches))}


def sparsify(problem: Mapping[str, Tensor], k: int) -> dict[str, PeerStep]:
    """What `Trainer.fit` does to a batch with Adam; its model's hook copies are left out."""
    from sparsify import SparseCoder, SparseCoderConfig
    from transformers import get_linear_schedule_with_warmup

    torch.set_float32_matmul_precision("high")
    features, d = problem["W_enc"].shape
    config, device = SparseCoderConfig(num_latents=features, k=k), problem["x"].device
    coder = SparseCoder(d, config, device=device, dtype=torch.float32)
    coder.encoder.weight.data = problem["W_enc"].clone()
    coder.W_dec.data = problem["W_dec"].clone()
    adam = torch.optim.Adam([{"params": coder.parameters(), "lr": RATE}])
    schedule = get_linear_schedule_with_warmup(adam, 0, 10**6)
    since_fired = torch.zeros(features, dtype=torch.long, device=device)
    did_fire = torch.zeros(features, dtype=torch.bool, device=device)
    batches = cycle(problem["x"])

    def step() -> float:
        x = next(batches)
        coder.set_decoder_norm_to_unit_norm()
        total_variance = (x - x.mean(0)).pow(2).sum()
        out = coder(x=x, y=x, dead_mask=None, total_variance=total_variance)
        did_fire[out.latent_indices.flatten()] = True
        fvu = float(out.fvu.detach())
        (out.fvu + out.multi_topk_fvu / 8).backward()
        coder.remove_gradient_parallel_to_decoder_directions()
        adam.step()
        adam.zero_grad()
        schedule.step()
        since_fired.add_(len(x))
        since_fired[did_fire] = 0
        did_fire.zero_()
        return fvu * total_variance.item() / len(x)

    return {"sparsify": step}


Load = Callable[[Mapping[str, Tensor], int], dict[str, PeerStep]]
"Makes a library's steps from the weights and batches, and k."
LIBRARIES: dict[str, Load] = {
    "sae-lens": saelens,
    "dictionary-learning": dictionary_learning,
    "eai-sparsify": sparsify,
}


def serve(library: str, load: Load, problem: str, k: str, threads: str, device: str) -> None:
    """Say the version and the names of the steps, then take one for each name that comes in."""
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    # Libraries print; only replies may go to the parent.
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    torch.set_num_threads(int(threads))
    steps = load(load_file(problem, device=device), int(k))
    about = {"library": library, "version": version(library), "steps": list(steps)}
    print(json.dumps(about), file=replies)
    for line in sys.stdin:
        start = time.perf_counter()
        loss = steps[line.strip()]()
        if device != "cpu":
            torch.accelerator.synchronize()
        seconds = time.perf_counter() - start
        print(json.dumps({"seconds": seconds, "loss": loss}), file=replies)


if __name__ == "__main__":
    library, *rest = sys.argv[1:]
    serve(library, LIBRARIES[library], *rest)
