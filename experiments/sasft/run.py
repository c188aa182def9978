"""Does a penalty on features of Chinese keep a model from going on in Chinese after mixed text?

    python -m experiments.sasft.run --model MODEL.gguf --dictionaries DICTS \
        --english EN.jsonl --chinese ZH.jsonl --work DIR [--seed N] [--samples N] [--threads 1]

Features are those that differ most between English and Chinese paragraphs of one manual, in the
last two dictionaries. LoRA is trained on other English paragraphs: with the penalty, with lambda 0,
and with the penalty on random features. Judged is what is written after English prompts with a
Chinese sentence in them. lambda is such that the penalty is half of the cross-entropy
before the training, so it was chosen by no result. A seed is of the adapter's start, the order of
texts, the random features and what is drawn when texts are written.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

from circuits import scope
from circuits.graph import write_json
from circuits.runs.trained import TrainedConfig, nodes_asked
from circuits.runs.training_texts import rows_of
from experiments.inputs import arguments, write_texts
from hooked_qwen.load import load_tokenizer
from hooked_qwen.plain_model import load_plain
from hooked_qwen.texts import texts_of
from hooked_qwen.threads import set_threads
from saes.scope.chosen_features import chosen_features, mean_pre_activations, passes
from saes.scope.fine_tune import FineTuneConfig, excess
from saes.scope.tuned_model import WriteConfig, cross_entropies
from saes.suite import load_suite

RESULTS = Path(__file__).parent / "results"
LAYERS = ("resid_post.17", "resid_post.21")
FEATURES = 4
"of each dictionary"
LEARNED, CLEAN, COMPARED = 240, 12, 24
"paragraphs to train on, to judge on, and to find features by, of each language"
LONGEST = 32
SHARE = 0.5
"lambda times the penalty, in units of the cross-entropy, before training"
TRAINING = FineTuneConfig(steps=60, batch=4, learning_rate=5e-4)
TRAINED = TrainedConfig(rank=8, longest=LONGEST, texts=LEARNED)
WRITE = WriteConfig(tokens=24, samples=4)
PROMPTS = (
    "Debian is a free operating system. 注意：这是一个自由的操作系统。 The next step is to",
    "Please read the manual before you start. 请先阅读手册。 Then",
    "The password is stored in a file. 密码存储在文件中。 Only",
    "A backup should be made every week. 每周应该备份一次。 If the disk fails,",
    "The printer does not work. 打印机不工作。 Check whether",
    "The network is down. 网络已断开。 Ask",
    "This package is old. 这个软件包很旧。 Its maintainer",
    "The kernel was built yesterday. 内核是昨天编译的。 After a restart",
    "You need more memory. 你需要更多内存。 The best way",
    "The file cannot be opened. 无法打开该文件。 One reason",
    "Every user has a home directory. 每个用户都有一个主目录。 It",
    "The server answers slowly. 服务器响应缓慢。 Perhaps",
    "Write a short letter. 写一封短信。 Dear",
    "The weather is fine today. 今天天气很好。 We",
    "He studied in Beijing for two years. 他在北京学习了两年。 Now he",
    "This tea is from Fujian. 这种茶来自福建。 It tastes",
    "My sister works in a hospital. 我姐姐在医院工作。 She",
    "The train leaves at nine. 火车九点出发。 The passengers",
    "The program prints a number. 该程序打印一个数字。 The number",
    "The test has failed. 测试失败了。 The developer",
    "Sort the list first. 先对列表排序。 Then",
    "The book has ten chapters. 这本书有十章。 In the first",
    "Save the document. 保存文档。 Next,",
    "The question is difficult. 这个问题很难。 The answer",
)


def main() -> None:
    """Parse the paths, find the features, train, copy the record here."""
    parser = arguments(__doc__, "english", "chinese")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--samples", type=int, default=WRITE.samples)
    parser.add_argument("--threads", type=int)
    given = parser.parse_args()
    if given.threads:
        set_threads(given.threads)
    sources = prepared(given.english, given.chinese, given.work)
    found = searched(given.dictionaries, given.model, sources, given.work)
    weight = weight_of(given.dictionaries, given.model, sources, found)
    name = f"tuned-{given.seed}" if given.seed else "tuned"
    record = scope.tune(
        given.dictionaries,
        given.model,
        found=found,
        top=FEATURES * len(LAYERS),
        text=[str(sources["learned"])],
        held_out=[str(sources["english"]), str(sources["chinese"])],
        prompts=[str(sources["prompts"])],
        behaviour="cjk",
        weight=weight,
        trained=TRAINED,
        training=replace(TRAINING, seed=given.seed),
        write=replace(WRITE, samples=given.samples, seed=given.seed),
        out=given.work / name,
        report=lambda what, done, total, note="": print(what, done, total, note, flush=True),
    )
    RESULTS.mkdir(exist_ok=True)
    write_json(told(record), RESULTS / f"{name}.json")
    figure = (given.work / name / "tune.svg").read_text(encoding="utf-8")
    (RESULTS / f"{name}.svg").write_text(figure, encoding="utf-8")


def prepared(english: Path, chinese: Path, work: Path) -> dict[str, Path]:
    """Files of the paragraphs that are trained on, judged on and compared, none twice."""
    work.mkdir(parents=True, exist_ok=True)
    paragraphs = {
        name: [text for text in texts_of([source])() if len(text) > 60]
        for name, source in (("english", english), ("chinese", chinese))
    }
    parts = {
        "english": paragraphs["english"][:CLEAN],
        "chinese": paragraphs["chinese"][:CLEAN],
        "compared_english": paragraphs["english"][CLEAN : CLEAN + COMPARED],
        "compared_chinese": paragraphs["chinese"][CLEAN : CLEAN + COMPARED],
        "learned": [text for text in paragraphs["english"][CLEAN + COMPARED :] if text.isascii()],
        "prompts": PROMPTS,
    }
    files = {}
    for name, texts in parts.items():
        files[name] = work / f"{name}.jsonl"
        write_texts(texts, files[name])
    return files


def searched(dictionaries: str, model: str, sources: dict[str, Path], work: Path) -> Path:
    """The record of the features of Chinese, the strongest of each of the dictionaries."""
    path = work / "found.json"
    if path.exists():
        return path
    record = scope.search(
        dictionaries,
        model,
        positive=[str(sources["compared_chinese"])],
        negative=[str(sources["compared_english"])],
        by="mean",
        top=400,
    )
    chosen = [
        one
        for layer in LAYERS
        for one in [f for f in record["found"] if f["feature"].startswith(f"{layer}/")][:FEATURES]
        if one["difference"] > 0
    ]
    write_json(record | {"found": chosen}, path)
    return path


def weight_of(dictionaries: str, model: str, sources: dict[str, Path], found: Path) -> float:
    """lambda by the rule above, on the texts of the first steps."""
    loaded, suite = load_plain(model), load_suite(dictionaries)
    tokenizer = load_tokenizer(model)
    rows = rows_of(tokenizer, [sources["learned"]], TRAINED)[:16]
    chosen = chosen_features(suite, nodes_asked([], found, FEATURES * len(LAYERS)), loaded)
    alpha, total, n = mean_pre_activations(loaded, chosen, rows), 0.0, 0
    for seen, trained in passes(loaded, rows, chosen.sites):
        counted = chosen.counted(seen, trained, trained)
        total += float(excess(chosen.pre_activations(seen), alpha, counted))
        n += int(counted.sum())
    sums, counts = cross_entropies(loaded, rows)
    return round(SHARE * float(sums.sum() / counts.sum()) / (total / n), 4)


def told(record: dict[str, Any]) -> dict[str, Any]:
    """The record without what names files of this machine."""
    return {key: value for key, value in record.items() if key != "made_from"}


if __name__ == "__main__":
    main()
