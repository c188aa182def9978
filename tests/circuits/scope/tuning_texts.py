"""What the bundled model is tuned on: a feature, texts in its language, and prompts."""

import json
from itertools import islice

from hooked_qwen.bundled import language

FEATURE = "resid_post.3/86"
SMALL = ("--longest", 24, "--texts", 24, "--tokens", 6, "--samples", 2, "--quiet")


def tuning_texts(folder):
    """Texts of the bundled model's language, and the beginnings of others."""
    documents = list(islice(language.documents(seed=5), 30))
    for name, some in {"train": documents[:20], "clean": documents[20:]}.items():
        lines = (json.dumps({"text": text}) for text in some)
        (folder / f"{name}.jsonl").write_text("\n".join(lines))
    heads = (json.dumps({"text": " ".join(text.split()[:5])}) for text in documents[:6])
    (folder / "prompts.jsonl").write_text("\n".join(heads))
    return folder
