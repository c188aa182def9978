"""Whether the libraries that publish dictionaries and we compute the same, both ways.

    python -m benchmarks.interop PEERS_PYTHON

PEERS_PYTHON is the Python of an environment with `sae-lens`, `eai-sparsify`,
`dictionary-learning` and `circuit-tracer`; those that are missing are left out. They need other
versions of our own dependencies, so they run in a process of their own.

1. Each library saves random dictionaries and what it computes with them; we read and compare.
2. We write dictionaries in the layouts that we write; each library reads, and we compare.
"""

import json
import platform
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from hooked_qwen.sites import Site
from saes.dictionary import DictionarySpec, SparseDictionary
from saes.formats.table import WRITTEN
from saes.suite import load_suite

RESULTS = Path(__file__).parent / "results" / "interop.json"
PEER = Path(__file__).parent / "interop_peer.py"
TOLERANCE = 1e-6
"Of the largest magnitude: float32 sums of 64 terms taken in another order."
EXPECTED = "expected.safetensors"
D, M, K = 64, 256, 8
OUT, IN = Site("mlp_out", 0), Site("mlp_in", 0)
OURS: tuple[tuple[str, Site, str, bool], ...] = (
    ("saelens", OUT, "relu", False),
    ("saelens", OUT, "topk", False),
    ("saelens", OUT, "jumprelu", False),
    ("saelens", IN, "relu", False),
    ("saelens", IN, "relu", True),
    ("saelens", IN, "jumprelu", False),
    ("saelens", IN, "jumprelu", True),
    ("sparsify", OUT, "topk", False),
    ("sparsify", IN, "topk", True),
    ("circuit-tracer", IN, "relu", True),
    ("circuit-tracer", IN, "jumprelu", False),
)


def main(python: str) -> None:
    """Compare both ways, print a table, write the results; fail where any differ."""
    with TemporaryDirectory() as temporary:
        theirs, mine = Path(temporary) / "theirs", Path(temporary) / "mine"
        theirs.mkdir()
        versions = _peer(python, "publish", theirs)
        rows = [_compare("read", one) for one in sorted(theirs.iterdir())]
        _write_ours(mine)
        _peer(python, "read", mine)
        read = [one for one in sorted(mine.iterdir()) if (one / EXPECTED).exists()]
        rows += [_compare("written", one) for one in read]
    record = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "libraries": versions,
        "tolerance": TOLERANCE,
        "rows": rows,
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(record, indent=1) + "\n")
    for row in rows:
        print(f"{row['way']:8} {row['case']:45} {row['features']:.1e} {row['outputs']:.1e}")
    if worst := [r["case"] for r in rows if max(r["features"], r["outputs"]) > TOLERANCE]:
        raise SystemExit(f"these differ by more than {TOLERANCE}: {', '.join(worst)}")


def _peer(python: str, verb: str, folder: Path) -> dict[str, str]:
    done = subprocess.run([python, str(PEER), verb, str(folder)], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"the peers' side failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def _compare(way: str, folder: Path) -> dict[str, Any]:
    """Largest difference of features and outputs, as a share of the largest magnitude."""
    expected = load_file(folder / EXPECTED)
    (dictionary,) = load_suite(folder).values()
    f, y = dictionary.encode(expected["x"]), dictionary(expected["x"])
    return {
        "way": way,
        "case": folder.name,
        "active": int((expected["f"] != 0).sum()),
        "features": _difference(f.dense(), expected["f"]),
        "outputs": _difference(y, expected["y"]),
    }


def _difference(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).abs().max() / theirs.abs().max())


def _write_ours(out: Path) -> None:
    for seed, (layout, source, architecture, skip) in enumerate(OURS):
        kind = "sae" if source == OUT else "transcoder"
        folder = out / f"{layout}-{kind}-{architecture}{'-skip' if skip else ''}"
        folder.mkdir(parents=True)
        save = WRITTEN[layout]
        save([_random(source, architecture, skip, seed)], folder)
        save_file({"x": torch.randn(512, D)}, folder / EXPECTED)


def _random(source: Site, architecture: str, skip: bool, seed: int) -> SparseDictionary:
    torch.manual_seed(seed)
    weights = {
        "W_enc": torch.randn(M, D) / D**0.5,
        "b_enc": torch.randn(M),
        "W_dec": torch.randn(M, D) / D**0.5,
        "b_dec": torch.randn(D),
    }
    if architecture == "jumprelu":
        weights["threshold"] = torch.rand(M)
    if skip:
        weights["W_skip"] = torch.randn(D, D) / D**0.5
    k = K if architecture == "topk" else None
    spec = DictionarySpec(source=source, target=OUT, architecture=architecture, k=k)
    return SparseDictionary(spec, weights)


if __name__ == "__main__":
    main(sys.argv[1])
