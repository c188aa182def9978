"""What `meta` of a graph says of the analysis that it is of, whatever the method."""

from typing import Any

import networkx as nx

from circuits.analysis import Analysis
from circuits.discovery.output import prompts_record
from circuits.graph import rounded
from hooked_qwen.identity import identity


def about(
    analysis: Analysis,
    graph: nx.DiGraph,
    *,
    clean: float,
    patch: float | None,
    accuracy: float | None,
    edge_units: str,
    edges_computed: int,
) -> dict[str, Any]:
    """Configuration, prompts, model and dictionaries, with the metric's means over the prompts."""
    model, prompts, config = analysis.model, analysis.prompts, analysis.config
    return {
        **config.record(),
        "edge_units": edge_units,
        "n_prompts": len(prompts),
        **prompts_record(prompts, model.tokenizer),
        "begins_with": list(prompts.begins_with),
        "tokens_hash": prompts.tokens_hash(),
        "columns": list(prompts.columns) if prompts.columns and config.positions != "sum" else None,
        "clean_metric": rounded(clean),
        "patch_metric": rounded(patch),
        "accuracy": rounded(accuracy),
        "edges_computed": edges_computed,
        "edges_kept": graph.number_of_edges(),
        "model": {
            "name": model.cfg.model_name,
            "hash": identity(model),
            "architecture": model.cfg.architecture,
            "layers": model.cfg.n_layers,
            "d_model": model.cfg.d_model,
        },
        "dictionaries": analysis.suite.describe(),
    }
