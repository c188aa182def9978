"""Files of features as Neuronpedia asks for them."""

from circuits.render.export.viewer_features import viewer_features
from tests.circuits.render.export.test_viewers import graph_of
from tests.circuits.synthetic import cards, circuit


def test_files_of_features_have_what_neuronpedia_asks_for():
    graph = circuit(40)
    for number, feature in viewer_features(graph, cards(graph)).items():
        assert feature["index"] == number
        assert all(isinstance(x, str) for k in ("top", "bottom") for x in feature[f"{k}_logits"])
        for quantile in feature["examples_quantiles"]:
            assert isinstance(quantile["quantile_name"], str)
            for example in quantile["examples"]:
                assert all(isinstance(token, str) for token in example["tokens"])
                assert all(isinstance(value, float) for value in example["tokens_acts_list"])


def test_a_feature_has_one_number_in_all_graphs_of_a_suite():
    suite = {name: {} for name in ("attn_out.0", "mlp_out.0", "mlp_out.1", "resid_post.1")}
    few = graph_of([("mlp_out.1/3@0", "logit/ are", 1.0)], dictionaries=suite)
    more = graph_of(
        [("attn_out.0/3@0", "mlp_out.1/3@0", 1.0), ("mlp_out.1/3@0", "logit/ are", 1.0)],
        dictionaries=suite,
    )
    card = {"mlp_out.1/3": {"examples": []}}
    assert list(viewer_features(few, card)) == list(viewer_features(more, card))
