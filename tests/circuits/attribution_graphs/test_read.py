"""Graphs of circuit-tracer and Neuronpedia become graphs of ours, and ours come back whole."""

import copy
import json

import pytest

from circuits.attribution_graphs import read_attribution_graph, read_view
from circuits.graph import Node, as_json, ordered
from circuits.render.connected import circuit_of
from circuits.render.export.viewers import VIEWERS, viewer_graph
from circuits.render.figure.compared import comparison
from circuits.render.figure.drawing import words_of
from tests.circuits.attribution_graphs.sample import SAMPLE, changed, link, node
from tests.circuits.synthetic import circuit


def removed(*gone):
    """The likeliest logit of that network with some of its nodes at zero."""
    x = 0.0 if "x" in gone else 1.0
    a = 0.0 if "a" in gone else 3 * x
    b = 0.0 if "b" in gone else 2 * a + x
    return b / 2 - a - (0.0 if "error" in gone else 0.25)


@pytest.fixture
def read(tmp_path):
    def of(record):
        path = tmp_path / "graph.json"
        path.write_text(json.dumps(record), encoding="utf-8")
        return read_attribution_graph(path)

    return of


@pytest.mark.parametrize("viewer", VIEWERS)
@pytest.mark.parametrize("positions", ["keep", "sum"])
def test_what_was_exported_comes_back_whole(read, viewer, positions):
    graph = circuit(120, positions=positions)
    graph.nodes[next(iter(graph))]["members"] = ["mlp_out.1/3@2"]
    back = read(viewer_graph(graph, viewer, slug="x"))
    assert as_json(back) == json.loads(json.dumps(as_json(graph)))


def test_nodes_are_named_by_what_they_are(read):
    graph = read(SAMPLE)
    said = {str(n): (graph.nodes[n]["token"], graph.nodes[n]["label"]) for n in graph}
    assert said == {
        "token@1": (" Dallas", " Dallas"),
        "clt.0/2@1": (" Dallas", "about Texas"),
        "clt.2/812@2": (" is", ""),
        "mlp_out.2/error@1": (" Dallas", ""),
        "mlp_out.1/error@2": (" is", ""),
        "logit/ Austin": (None, ""),
        "logit/ the": (None, ""),
    }
    assert graph.graph["columns"] == ["<bos>", " Dallas", " is"]
    assert graph.graph["model"] == {"name": "gemma-2-2b"}


@pytest.mark.parametrize(
    ("metadata", "site"),
    [
        ({}, "clt"),
        ({"transcoder_list": ["org/layer-0", "org/layer-1"]}, "mlp_out"),
        ({"feature_details": {"neuronpedia_source_set": "gemmascope-transcoder-16k"}}, "mlp_out"),
        ({"feature_details": {"neuronpedia_source_set": "clt-hp"}}, "clt"),
        ({"info": {"source_urls": ["https://a.b/gemma-2-2b-clt-426k"]}}, "clt"),
        ({"info": {"source_urls": ["https://a.b/transcoders"]}}, "mlp_out"),
        ({"info": {"source_urls": ["a.b/c"], "transcoder_set": "c/transcoder_all"}}, "mlp_out"),
        ({"scan": "org/qwen3-0.6b-transcoders-lowl0"}, "mlp_out"),
    ],
)
def test_features_of_one_layer_and_of_several(read, metadata, site):
    assert Node(f"{site}.2", 812, 2) in read(changed(**metadata))


def test_numbers_come_from_the_pair_where_the_id_is_another(read):
    """(2 + 812) (2 + 812 + 1) / 2 + 812; without a schema's version the number is the field."""
    record = copy.deepcopy(SAMPLE)
    record["nodes"][2] |= {"node_id": "n", "feature": 814 * 815 // 2 + 812}
    record["links"] = [link("n", "27_22605_2", 3.5)]
    assert Node("clt.2", 812, 2) in read(record)
    record["metadata"]["schema_version"] = None
    record["nodes"][2]["feature"] = 812
    assert Node("clt.2", 812, 2) in read(record)


def test_attention_features_have_their_site(read):
    record = copy.deepcopy(SAMPLE)
    record["nodes"][2]["feature_type"] = "lorsa"
    record["nodes"][4]["feature_type"] = "lorsa error"
    graph = read(record)
    assert {Node("attn_out.2", 812, 2), Node("attn_out.1", "error", 2)} <= set(graph)


def paired(layer, number):
    return (layer + number) * (layer + number + 1) // 2 + number


# As Neuronpedia's runs with attention features write one: layers are numbers, ids say the type,
# nodes that are no feature have none, and biases may be among them.
WITH_ATTENTION = {
    "metadata": {
        "slug": "capital",
        "scan": "llama",
        "prompt": "Dallas is",
        "prompt_tokens": [" Dallas", " is"],
        "schema_version": 1,
        "feature_details": {
            "neuronpedia_source_set": "scope-transcoder-8x",
            "neuronpedia_lorsa_source_set": "scope-lorsa-8x",
        },
    },
    "qParams": {"pinnedIds": ["1_lor_7_1"], "supernodes": [["moves", "1_lor_7_1"]]},
    "nodes": [
        node("E_26865_0", "E", 0, "embedding", feature=None, clerp='Emb: " Dallas"'),
        node("1_lor_7_1", 1, 1, "lorsa", feature=paired(1, 7), activation=2.0),
        node("1_cro_7_1", 1, 1, feature=paired(1, 7), activation=2.0),
        node("1_error_mlp_1", 1, 1, "mlp reconstruction error", feature=None),
        node("1_error_attn_1", 1, 1, "lorsa error", feature=None),
        node("1_bias_attn_bO_1", 1, 1, "bias", feature=None),
        node("2_5_1", 2, 1, "logit", feature=5, clerp='Logit " Austin" (p=0.410)'),
    ],
    "links": [
        link("E_26865_0", "1_lor_7_1", 3.0),
        link("1_lor_7_1", "1_cro_7_1", 6.0),
        link("1_bias_attn_bO_1", "1_cro_7_1", 1.0),
        link("1_cro_7_1", "2_5_1", 1.0),
    ],
}

# As EleutherAI's attribute writes one: no version, ids by token, layer and number, fields paired.
BY_TOKEN = {
    "metadata": {
        "slug": "capital",
        "scan": "transcoder",
        "prompt": "Dallas is",
        "prompt_tokens": [" Dallas", " is"],
        "n_layers": 3,
    },
    "qParams": {"linkType": "both"},
    "nodes": [
        node("input_0", "E", 0, "embedding", feature=None),
        node("intermediate_1_2_812", "2", 1, feature=paired(2, 812)),
        node("error_1_2", "2", 1, "mlp reconstruction error", feature=None),
        node("output_1_0", "-1", 1, "logit", feature=None, clerp='output: " Austin" (p=0.410)'),
    ],
    "links": [
        link("input_0", "intermediate_1_2_812", 3.0),
        link("intermediate_1_2_812", "output_1_0", 6.0),
        link("error_1_2", "output_1_0", 1.0),
    ],
}


def test_types_of_a_graph_with_attention_features(read, tmp_path):
    graph = read(WITH_ATTENTION)
    assert {str(n) for n in graph} == {
        "token@0",
        "attn_out.1/7@1",
        "attn_out.1/error@1",
        "mlp_out.1/7@1",
        "mlp_out.1/error@1",
        "logit/ Austin",
    }
    assert graph.has_edge(Node("attn_out.1", 7, 1), Node("mlp_out.1", 7, 1))
    assert "1 node of type 'bias' left out" in graph.graph["notices"][0]
    assert graph.number_of_edges() == 3
    assert read_view(tmp_path / "graph.json").groups == {"moves": (Node("attn_out.1", 7, 1),)}


def test_ids_by_token_layer_and_number(read):
    graph = read(BY_TOKEN)
    assert {str(n) for n in graph} == {
        "token@0",
        "mlp_out.2/812@1",
        "mlp_out.2/error@1",
        "logit/ Austin",
    }


def test_outputs_come_by_their_probability(read):
    """A figure with room for one output draws the likeliest, and says how likely it is."""
    record = copy.deepcopy(SAMPLE)
    record["nodes"][6]["clerp"] = 'Output " Aachen" (p=0.120)'
    graph = read(record)
    outputs = [str(node) for node in ordered(graph) if node.kind == "logit"]
    assert outputs == ["logit/ Austin", "logit/ Aachen"]
    (drawn,) = [n for n in circuit_of(graph, 5) if n.kind == "logit"]
    assert words_of(drawn, graph, "both").name == "p = 0.41"
    again = viewer_graph(graph, VIEWERS[0], slug="x")
    assert {n["clerp"]: n["token_prob"] for n in again["nodes"] if n["is_target_logit"]} == {
        'Output "Austin" (p=0.410)': 0.41,
        'Output "Aachen" (p=0.120)': 0.12,
    }


def test_two_prompts_in_one_figure(read):
    """A token that differs says both; an output of both says what became of its probability."""
    record = copy.deepcopy(SAMPLE)
    record["metadata"]["prompt_tokens"][1] = " Oakland"
    record["nodes"][5]["clerp"] = 'Output " Austin" (p=0.025)'
    both = comparison(read(SAMPLE), read(record), ("one", "two"))
    said = {str(n): words_of(n, both, "both") for n in both}
    assert said["token@1"].label == " Dallas | Oakland"
    assert (said["logit/ Austin"].name, said["logit/ Austin"].badge) == ("", "p = 0.41 → 0.025")
    assert said["logit/ the"].name == "p = 0.12"


def test_effects_are_what_removing_a_node_does(read):
    record = copy.deepcopy(SAMPLE)
    record["links"].append(link("0_2_1", "27_22605_2", -3.0))
    # That name is of an error too, which reaches the logit as well: the file leaves it open.
    record["nodes"][3]["node_id"] = "err"
    graph = read(record)
    effects = {str(n): graph.nodes[n]["effect"] for n in graph}
    names = {"token@1": "x", "clt.0/2@1": "a", "clt.2/812@2": "b", "mlp_out.1/error@2": "error"}
    for name, part in names.items():
        assert effects[name] == pytest.approx(removed(part) - removed(), abs=1e-6)
    assert effects["logit/ Austin"] is None
    assert "' Austin'" in graph.graph["estimator"]


def test_weights_stay_as_they_are(read):
    graph = read(SAMPLE)
    weights = {(str(u), str(v)): w for u, v, w in graph.edges(data="weight")}
    assert weights == {
        ("token@1", "clt.0/2@1"): 3.0,
        ("clt.0/2@1", "clt.2/812@2"): 6.0,
        ("token@1", "clt.2/812@2"): 1.0,
        ("clt.2/812@2", "logit/ Austin"): 3.5,
        ("clt.2/812@2", "logit/ the"): 1.25,
        ("mlp_out.1/error@2", "logit/ Austin"): -0.25,
    }
    assert "pre-activation" in graph.graph["edge_units"]


def test_an_edge_whose_source_is_one_of_two_is_left_out_and_counted(read):
    """0_2_1 is feature 2 of layer 0, or the error of layer 2: both reach a logit, one layer 2."""
    record = copy.deepcopy(SAMPLE)
    record["links"].append(link("0_2_1", "27_573_2", 9.0))
    graph = read(record)
    assert graph.number_of_edges() == len(SAMPLE["links"])
    (notice,) = graph.graph["notices"]
    assert "1 edge left out" in notice
    assert "left out" not in read(SAMPLE).graph["notices"][0]


def test_without_activations_effects_are_influence(read):
    record = copy.deepcopy(SAMPLE)
    for found, reached in zip(record["nodes"], [0.7, 0.9, 0.4, 1.0, 0.95, None, None], strict=True):
        found |= {"influence": reached, "activation": None}
    graph = read(record)
    effects = {str(n): graph.nodes[n]["effect"] for n in graph if n.kind != "logit"}
    assert effects == pytest.approx(
        {
            "clt.2/812@2": -0.4,
            "token@1": -0.3,
            "clt.0/2@1": -0.2,
            "mlp_out.1/error@2": -0.05,
            "mlp_out.2/error@1": -0.05,
        }
    )
    assert "influence in the file" in graph.graph["notices"][0]
    for found in record["nodes"]:
        found["influence"] = None
    graph = read(record)
    assert "influence by its edges" in graph.graph["notices"][0]
    assert graph.nodes[Node("clt.2", 812, 2)]["effect"] < 0


def broken(change):
    record = copy.deepcopy(SAMPLE)
    change(record)
    return record


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ([1], "it lacks metadata, nodes, links"),
        ({"schema": "feature-graph/1", "nodes": []}, "it lacks metadata, links"),
        (broken(lambda r: r["links"].append(link("no", "2_812_2", 1.0))), "names the node 'no'"),
        (broken(lambda r: r["links"].append(link("2_812_2", "0_1_2", 1.0))), "has no inputs"),
        (broken(lambda r: r["nodes"][2].pop("layer")), "it lacks 'layer'"),
        (broken(lambda r: r["nodes"][2].update(layer="x")), "is in layer 'x'"),
        (broken(lambda r: r["links"][0].update(weight="much")), "could not convert"),
        (broken(lambda r: r["links"][0].update(weight=float("inf"))), "the number inf"),
        (broken(lambda r: r["nodes"].append(copy.deepcopy(r["nodes"][2]))), "clt.2/812@2"),
        (broken(lambda r: r["nodes"][2].update(ctx_idx=9)), "at token 9, and its prompt has 3"),
    ],
)
def test_another_file_is_refused_in_one_line(read, record, said):
    with pytest.raises(ValueError, match=said) as told:
        read(record)
    assert "graph.json" in str(told.value)
    assert "\n" not in str(told.value)
