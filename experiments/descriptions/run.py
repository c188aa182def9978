"""Can a model of half a billion parameters say what its own features are?

    python -m experiments.descriptions.run --model MODEL.gguf --dictionaries DICTS --text TEXT

Features of one dictionary, drawn at random, are described and judged by the model whose features
they are. The same descriptions, and the written rule, are judged by words, which needs no model.
Everything goes to `results/` beside this file, but for the passages.
"""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from circuits.features.answers import Answer, local
from circuits.features.asking import asked, by_words, explainer_prompt, phrase
from circuits.features.describe import RULE_BY, describe_features
from circuits.graph import write_json
from circuits.scope.describe import EXPLAINED, JUDGED, drawn_features
from hooked_qwen.load import load
from hooked_qwen.progress import Report
from hooked_qwen.texts import texts_of
from saes.scope.contexts import ContextConfig, read_contexts
from saes.scope.held_out import SplitConfig
from saes.suite import load_suite

RESULTS = Path(__file__).parent / "results"
SITE, COUNT, TOKENS = "resid_post.11", 20, 16_384
SPLIT = SplitConfig(shown=8, judged=4, quantiles=4)
PER_QUESTION = 8
"Passages that are judged at once."


def main() -> None:
    """Parse the paths, describe, judge."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--dictionaries", required=True)
    parser.add_argument("--text", required=True, nargs="+")
    parser.add_argument("--count", type=int, default=COUNT)
    parser.add_argument("--tokens", type=int, default=TOKENS)
    parser.add_argument("--per-question", type=int, default=PER_QUESTION)
    parser.add_argument("--work", type=Path, required=True, help="keeps answers between runs")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    # In half the precision a processor answers in half the time.
    model = load(arguments.model, dtype="bfloat16")
    suite = load_suite(arguments.dictionaries)

    def tell(what: str, done: int, total: int, note: str = "") -> None:
        print(what, done, total, flush=True)

    report: Report = tell
    contexts = read_contexts(
        model,
        suite,
        [SITE],
        texts_of(arguments.text)(),
        config=ContextConfig(tokens=arguments.tokens),
        report=lambda done, total: tell("contexts", done, total),
    )
    nodes = drawn_features(contexts[SITE], SITE, arguments.count, SPLIT, seed=0)
    explainer = kept(local(model, tokens=EXPLAINED, stop=("\n",)), arguments.work)

    def explain(shown: Any) -> str:
        return phrase(explainer(explainer_prompt(shown, model.tokenizer)))

    by = "model itself"
    rest = {"config": SPLIT, "per_question": arguments.per_question, "report": report}
    judge = asked(kept(local(model, tokens=JUDGED, stop=("]",)), arguments.work))
    ways: Mapping[str, Any] = {
        "itself": {"explain": explain, "by": by, "judge": judge, "judged_by": by},
        "words": {"explain": explain, "by": by, "judge": by_words, "judged_by": "words"},
        "rule": {"explain": None, "by": RULE_BY, "judge": by_words, "judged_by": "words"},
    }
    arguments.out.mkdir(exist_ok=True)
    for name, way in ways.items():
        record = describe_features(model, suite, contexts, nodes, **way, **rest)
        for feature in record["features"]:
            del feature["judged"]
        write_json(record, arguments.out / f"{name}.json")


def kept(answer: Answer, file: Path) -> Answer:
    """The same answers, none of them asked for twice, were it in another run."""
    known: dict[str, str] = {}
    if file.exists():
        known = dict(map(json.loads, file.read_text(encoding="utf-8").splitlines()))

    def answered(prompt: str) -> str:
        if prompt not in known:
            known[prompt] = answer(prompt)
            with file.open("a", encoding="utf-8") as lines:
                lines.write(json.dumps([prompt, known[prompt]]) + "\n")
        return known[prompt]

    return answered


if __name__ == "__main__":
    main()
