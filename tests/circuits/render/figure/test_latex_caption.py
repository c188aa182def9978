"""A caption in LaTeX: the question, the numbers, what it was found with."""

from circuits.render.figure.drawing import picture
from circuits.render.figure.latex_caption import latex_caption, write_caption
from circuits.render.interventions import Intervention
from tests.circuits import synthetic


def test_a_caption_says_what_was_asked_found_and_used():
    graph = synthetic.circuit(60)
    graph.graph["dictionaries"] = {f"mlp_out.{i}": {} for i in range(3)}
    shown = picture(graph)
    words = latex_caption(shown, graph, synthetic.verification(graph))
    for part in (
        r"\caption{Subject{-}verb agreement",
        "64 prompts: 3.21 on the clean prompts, $-$2.87 on the patched",
        r"Faithfulness of the graph's 60 nodes: 0.90 (95 \% interval 0.86 to 0.95)",
        "others at their mean",
        "Shown: 25 of 60 nodes",
        "Model: Qwen3{-}0.6B{-}Base; 3 dictionaries (mlp\\_out of layers 0 to 2)",
    ):
        assert part in words
    assert "Faithfulness" not in latex_caption(shown, graph)


def test_what_the_graph_does_not_say_is_left_out():
    graph = synthetic.circuit(20)
    for name in ("model", "estimator", "n_prompts", "clean_metric", "patch_metric"):
        graph.graph.pop(name, None)
    words = latex_caption(picture(graph), graph)
    assert "Model" not in words
    assert "effects by" not in words
    assert "prompts" not in words
    assert "None" not in words
    assert words.count(r"\caption{") == 1


def test_an_intervention_says_what_became_of_the_metric():
    graph = synthetic.circuit(20)
    done = Intervention(what="set to 0", before=3.0, after=-0.5)
    words = latex_caption(picture(graph), graph, intervention=done)
    assert "(set to 0), which takes the metric from 3.00 to $-$0.50" in words


def test_it_is_written_whole(tmp_path):
    graph = synthetic.circuit(20)
    shown = picture(graph)
    write_caption(shown, graph, None, tmp_path / "a.tex")
    assert (tmp_path / "a.tex").read_text(encoding="utf-8") == latex_caption(shown, graph)
