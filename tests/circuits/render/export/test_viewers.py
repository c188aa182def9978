"""Files for Neuronpedia and circuit-tracer: what their schema asks for, and what they do."""

import json
import re

import networkx as nx
import pytest

from circuits.discovery.prune import influence
from circuits.graph import Node, rounded
from circuits.render.export.viewers import (
    VIEWERS,
    cumulative_influence,
    export_for_viewer,
    viewer_graph,
)
from circuits.render.exporters import Drawn, exporters
from circuits.saved_state import SavedState
from hooked_qwen.notices import Notice
from tests.circuits.discovery.replaced import graph_of as replacement_graph
from tests.circuits.discovery.replaced import rows_of
from tests.circuits.synthetic import cards, circuit
from tests.toys import toy_prompts

NODE = {
    "node_id": str,
    "feature": int,
    "layer": str,
    "ctx_idx": int,
    "feature_type": str,
    "jsNodeId": str,
    "clerp": str,
}
TYPES = {"cross layer transcoder", "mlp reconstruction error", "embedding", "logit"}


def graph_of(edges, **meta) -> nx.DiGraph:
    graph = nx.DiGraph(metric="logit-difference", **meta)
    for end in dict.fromkeys(end for source, target, _ in edges for end in (source, target)):
        node = Node.parse(end)
        graph.add_node(node, kind=node.kind, token=None, activation=1.0, effect=-1.0, exact=None,
                       label="")  # fmt: skip
    graph.add_weighted_edges_from((Node.parse(u), Node.parse(v), w) for u, v, w in edges)
    return graph


HOSTILE = '<script>alert(1)</script> "quoted" (p=0.5) \n\u202e & 复'
GRAPHS = {
    "of three hundred nodes": circuit(300),
    "of summed positions": circuit(60, positions="sum"),
    "of one token": graph_of(
        [("token@0", "mlp_out.1/3@0", 1.0), ("mlp_out.1/3@0", "logit/ are", -2.0)], columns=["The"]
    ),
    "of layer 0 alone": graph_of(
        [("token@0", "mlp_out.0/3@1", 1.0), ("mlp_out.0/3@1", "logit/ are", -2.0)],
        columns=["The", " cat"],
    ),
    # circuit-tracer's own name for this error is that of this feature.
    "of an error and a feature of one number": graph_of(
        [("mlp_out.0/2@1", "logit/ are", 1.0), ("mlp_out.2/error@1", "logit/ are", 1.0)],
        columns=["The", " cat"],
    ),
    "of features of one number at three sites": graph_of(
        [
            ("attn_out.1/7@1", "mlp_out.1/7@1", 1.0),
            ("mlp_out.1/7@1", "resid_post.1/7@1", 1.0),
            ("attn_out.1/error@1", "mlp_out.1/error@1", 0.5),
            ("resid_post.1/7@1", "logit/ are", -1.0),
            ("clt.1/7@1", "logit/ is", 1.0),
        ],
        columns=["The", " cat"],
    ),
}


@pytest.mark.parametrize("viewer", VIEWERS)
@pytest.mark.parametrize("graph", GRAPHS.values(), ids=GRAPHS)
def test_both_viewers_open_it(graph, viewer):
    made = json.loads(json.dumps(viewer_graph(graph, viewer, slug="a-graph"), allow_nan=False))
    meta, nodes, links = made["metadata"], made["nodes"], made["links"]
    assert all(isinstance(meta[field], str) for field in ("slug", "scan", "prompt"))
    assert all(isinstance(token, str) for token in meta["prompt_tokens"])
    assert all(isinstance(made["qParams"][name], list) for name in ("pinnedIds", "supernodes"))
    assert all(isinstance(link["weight"], float) for link in links)
    for node in nodes:
        assert all(isinstance(node[field], kind) for field, kind in NODE.items())
        assert node["feature_type"] in TYPES
        assert 0 <= node["ctx_idx"] < len(meta["prompt_tokens"])
    ids = [node["node_id"] for node in nodes]
    assert len(set(ids)) == len(ids) == len(graph)
    assert len(links) == graph.number_of_edges()
    assert {end for link in links for end in (link["source"], link["target"])} <= set(ids)
    # circuit-tracer throws away features that more than two thirds of the tokens have.
    assert len(meta["prompt_tokens"]) > 1
    numbers = {(n["layer"], n["feature"], n["ctx_idx"]) for n in nodes}
    assert len(numbers) == len(nodes)
    # Neuronpedia throws "No layer found".
    inner = [n for n in nodes if n["feature_type"] != "logit"]
    assert max(int(n["layer"]) for n in inner if n["layer"] != "E") > 0
    outputs = [n for n in nodes if n["feature_type"] == "logit"]
    assert all(re.fullmatch(r'Output "[^"]+" \(p=[01]\.\d+\)', n["clerp"]) for n in outputs)
    assert sum(n["token_prob"] for n in outputs) == pytest.approx(1)
    # Neuronpedia takes the place of features from nowhere else once a version is named.
    assert "schema_version" not in meta
    assert meta.get("node_threshold", 1.0) is not None
    if "node_threshold" in meta:
        assert all(0 <= n["influence"] <= meta["node_threshold"] for n in inner)
    plain = [meta["slug"]] + [meta["scan"]] * (viewer == "neuronpedia")
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+", name) for name in plain)


def test_each_file_is_for_one_of_them():
    """circuit-tracer's viewer reads features of its own folder only under this name."""
    scans = [viewer_graph(circuit(20), v, slug="x")["metadata"]["scan"] for v in VIEWERS]
    assert scans == ["qwen3-0.6b-pt", "./data/features"]


def test_weights_are_positive_where_the_source_supports():
    graph = graph_of([("token@0", "mlp_out.1/3@1", -3.0), ("mlp_out.1/3@1", "logit/ are", 2.0)])
    links = {x["target"]: x["weight"] for x in viewer_graph(graph, VIEWERS[0], slug="x")["links"]}
    assert sorted(links.values()) == [-2.0, 3.0]
    graph.graph["edge_units"] = "pre-activation"
    links = {x["target"]: x["weight"] for x in viewer_graph(graph, VIEWERS[0], slug="x")["links"]}
    assert sorted(links.values()) == [-3.0, 2.0]


def test_influence_is_cumulative():
    """Of a chain with a side branch: shares by the rule of `influence`, the largest first."""
    graph = graph_of(
        [
            ("mlp_out.0/1@0", "mlp_out.1/2@0", 3.0),
            ("mlp_out.0/9@0", "mlp_out.1/2@0", -1.0),
            ("mlp_out.1/2@0", "logit/ are", 5.0),
        ]
    )
    found = cumulative_influence(graph)
    alone = influence({(u, v): w for u, v, w in graph.edges(data="weight")}, Node("logit", " are"))
    assert alone[Node("mlp_out.0", 1, 0)] == 0.75
    assert found == {
        Node("mlp_out.1", 2, 0): 0.5,
        Node("mlp_out.0", 1, 0): 0.875,
        Node("mlp_out.0", 9, 0): 1.0,
    }
    graph.add_edge(Node("mlp_out.1", 2, 0), Node("mlp_out.0", 1, 0), weight=1.0)
    assert cumulative_influence(graph) == {}
    made = viewer_graph(graph, VIEWERS[0], slug="x")
    assert "node_threshold" not in made["metadata"]


@pytest.fixture(scope="module")
def replaced():
    return replacement_graph(rows_of(toy_prompts(n=3), [0]), nodes=20)


@pytest.mark.parametrize("viewer", VIEWERS)
def test_replacement_graphs_keep_influence_pre_activations_and_heads(replaced, viewer):
    made = json.loads(json.dumps(viewer_graph(replaced, viewer, slug="x"), allow_nan=False))
    nodes = {n["qwen_circuits"]["id"]: n for n in made["nodes"]}
    inner = [n for n in replaced if n.kind != "logit"]
    total = sum(replaced.nodes[n]["influence"] for n in inner)
    for node in inner:
        data, found = replaced.nodes[node], nodes[str(node)]
        above = [m for m in inner if replaced.nodes[m]["influence"] >= data["influence"]]
        share = sum(replaced.nodes[m]["influence"] for m in above) / total
        # Of nodes with as much influence, one comes first.
        assert found["influence"] <= share + 1e-6
        assert found["activation"] == rounded(data["activation"])
        for name in ("influence", "pre_activation", "bias"):
            assert found["qwen_circuits"].get(name) == data.get(name)
    assert max(nodes[str(n)]["influence"] for n in inner) == 1.0
    ids = {n["node_id"]: n["qwen_circuits"]["id"] for n in made["nodes"]}
    edges = {(str(u), str(v)): data for u, v, data in replaced.edges(data=True)}
    for link in made["links"]:
        data = edges[ids[link["source"]], ids[link["target"]]]
        assert link["weight"] == pytest.approx(data["weight"], rel=1e-6)
        for name in ("direct", "heads", "rest", "factors", "influence"):
            assert link["qwen_circuits"][name] == data[name]
    assert made["metadata"]["qwen_circuits"]["heads"] == replaced.graph["heads"]
    description = made["metadata"]["info"]["description"]
    assert description.startswith("An attribution graph of the replacement model of")


@pytest.mark.parametrize("viewer", VIEWERS)
def test_hostile_text_is_no_markup(viewer):
    """Both viewers set labels and tokens as markup: what they show holds none."""
    graph = circuit(30)
    graph.graph["columns"] = [HOSTILE, *graph.graph["columns"][1:]]
    graph.graph["model"] = {"name": HOSTILE}
    for _, data in graph.nodes(data=True):
        data["label"] = HOSTILE
    output = Node("logit", HOSTILE)
    graph.add_node(output, kind="logit", token=None, activation=None, effect=None, exact=None,
                   label="")  # fmt: skip
    made = viewer_graph(graph, viewer, slug="x")
    shown = [n["clerp"] for n in made["nodes"]] + made["metadata"]["prompt_tokens"]
    shown += [made["metadata"]["info"]["description"], made["metadata"]["prompt"]]
    assert not any(set(text) & set("<>\n\u202e") for text in shown)
    (label,) = [n["clerp"] for n in made["nodes"] if n["qwen_circuits"]["id"] == str(output)]
    token, p = label.split('"')[1], label.split("(p=")[1].split(")")[0]
    assert "quoted" in token
    assert float(p) == 0.5


def test_features_are_where_the_graph_says(tmp_path):
    graph = circuit(80)
    known = cards(graph)
    drawn = Drawn(folder=tmp_path, graph=graph, verification=None, nodes=25, name="ünnamed run!",
                  cards=known)  # fmt: skip
    for viewer, export in exporters(VIEWERS):
        (folder,) = export(drawn, viewer)
        assert folder == tmp_path / viewer
        made = json.loads((folder / "nnamed-run.json").read_text(encoding="utf-8"))
        features = [n for n in made["nodes"] if n["feature_type"] == "cross layer transcoder"]
        assert len(features) > 50
        for node in features:
            path = folder / "features" / f"{node['feature']}.json"
            feature = json.loads(path.read_text(encoding="utf-8"))
            card = known[node["qwen_circuits"]["id"].split("@")[0]]
            assert feature["index"] == node["feature"]
            assert feature["top_logits"] == [token for token, _ in card["promoted"]]
            (quantile,) = feature["examples_quantiles"]
            for example, ours in zip(quantile["examples"], card["examples"], strict=True):
                assert example["tokens"] == ours["tokens"]
                assert example["tokens_acts_list"] == ours["values"]
    listed = json.loads((tmp_path / "circuit-tracer" / "graph-metadata.json").read_text())
    assert [g["slug"] for g in listed["graphs"]] == ["nnamed-run"]
    assert not (tmp_path / "neuronpedia" / "graph-metadata.json").exists()


@pytest.mark.filterwarnings("ignore:Neuronpedia shows its own")
def test_neuronpedia_is_told_where_features_are(tmp_path):
    graph = circuit(20)
    address = "https://example.org/run/features"
    for viewer in VIEWERS:
        without = viewer_graph(graph, viewer, slug="x")
        assert "feature_details" not in without["metadata"]
    graph.graph["model"] = {"name": "Qwen/Qwen3-4B"}
    drawn = Drawn(folder=tmp_path, graph=graph, verification=None, nodes=25, features_url=address)
    for viewer, export in exporters(VIEWERS):
        (folder,) = export(drawn, viewer)
        told = json.loads((folder / "graph.json").read_text())["metadata"].get("feature_details")
        assert told == ({"feature_json_base_url": address} if viewer == "neuronpedia" else None)
    with pytest.warns(Notice, match="its own features in graphs of 'qwen3-4b', not those at https"):
        export_for_viewer(drawn, "neuronpedia")


@pytest.mark.parametrize(
    ("name", "called"),
    [
        ("Qwen/Qwen3-0.6B", "qwen3-0.6b"),
        ("Qwen3.5-2B-Base", "qwen3.5-2b-pt"),
        ("/home/ann/Qwen2.5-7B-Instruct/", "qwen2.5-7b-it"),
        ("bundled", "bundled"),
        ("复", "model"),
    ],
)
def test_models_have_the_names_that_neuronpedia_gives_them(name, called):
    graph = circuit(20)
    graph.graph["model"] = {"name": name}
    assert viewer_graph(graph, "neuronpedia", slug="x")["metadata"]["scan"] == called


def test_what_a_person_pinned_grouped_and_named_goes_along():
    graph = circuit(40)
    one, two, three, four = [n for n in graph if n.kind == "feature"][:4]
    state = SavedState(
        pinned=(one, two),
        groups={f"plural {HOSTILE}": (two, three), "rest": (four,)},
        labels={three: "a name of my own"},
    )
    made = viewer_graph(graph, VIEWERS[0], slug="x", state=state)
    ids = {n["qwen_circuits"]["id"]: n["node_id"] for n in made["nodes"]}
    view = made["qParams"]
    # Of a group viewers show what is pinned of it.
    assert view["pinnedIds"] == [ids[str(n)] for n in (one, two, three, four)]
    (first, *plural), rest = view["supernodes"]
    assert plural == [ids[str(two)], ids[str(three)]]
    assert rest == ["rest", ids[str(four)]]
    assert not set(first) & set("<>")
    (label,) = [n["clerp"] for n in made["nodes"] if n["node_id"] == ids[str(three)]]
    assert label.endswith(": a name of my own")
