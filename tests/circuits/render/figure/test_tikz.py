"""TikZ that compiles as it is, whatever labels hold, and a caption that says what was found."""

import re
import shutil
import subprocess

import pytest

from circuits.render.figure.drawing import picture
from circuits.render.figure.figure import figure
from circuits.render.figure.latex_caption import latex_caption
from circuits.render.figure.tikz import escaped, tikz
from tests.circuits import synthetic

HOSTILE = [
    r"\input{/etc/passwd} \end{tikzpicture}",
    "100% of $x_1$ & #3 {open",
    "closed} ~^ <b>\"quotes\" `tick` 'n' --- |",
    "复数 оборот é ş ½ 🙂 \x07 \u202e",
    r"\\ \def\x{",
    "%",
]


@pytest.fixture(scope="module")
def hostile():
    graph = synthetic.circuit(60)
    labels = HOSTILE * len(graph)
    for node, label in zip(list(graph), labels, strict=False):
        graph.nodes[node]["label"] = label
    graph.graph["columns"] = [*HOSTILE, *HOSTILE][: len(graph.graph["columns"])]
    return graph


def document(body):
    return (
        "\\documentclass{article}\n\\usepackage{tikz}\n\\begin{document}\n"
        f"\\begin{{figure}}\n{body}\\end{{figure}}\n\\end{{document}}\n"
    )


def test_every_group_is_closed_and_no_label_is_a_command(hostile):
    text = tikz(picture(hostile))
    text = re.sub(r"(?m)(?<!\\)%.*$", "", text)
    known = re.sub(r"\\[\\{}$&#%_]", "", text)
    assert known.count("{") == known.count("}")
    assert known.count("$") % 2 == 0
    commands = set(re.findall(r"\\([A-Za-z]+)", text))
    assert not commands & {"input", "x"}
    assert text.count(r"\end{tikzpicture}") == 1


@pytest.mark.parametrize("text", HOSTILE)
def test_escaped_text_has_no_character_that_tex_acts_on(text):
    plain = re.sub(r"\\(text\w+|rightarrow|ldots|codepoint\{\w+\})|\\[{}$&#%_]", "", escaped(text))
    assert not set("\\%#&_^") & set(plain)
    assert plain.count("{") == plain.count("}")


def test_two_runs_give_the_same_text(hostile, tmp_path):
    for name in ("a.tex", "b.tex"):
        figure(hostile, tmp_path / name)
    assert (tmp_path / "a.tex").read_bytes() == (tmp_path / "b.tex").read_bytes()


@pytest.mark.parametrize("engine", ["pdflatex", "lualatex"])
def test_it_compiles_in_a_plain_article(hostile, tmp_path, engine):
    if shutil.which(engine) is None:
        pytest.skip(f"needs {engine}")
    shown = figure(hostile, tmp_path / "graph.tex")
    caption = latex_caption(shown, hostile, synthetic.verification(hostile))
    (tmp_path / "paper.tex").write_text(document("\\input{graph.tex}\n" + caption))
    done = subprocess.run(
        [engine, "-interaction=nonstopmode", "-halt-on-error", "paper.tex"],
        cwd=tmp_path, capture_output=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout.decode(errors="replace")[-2000:]
    assert (tmp_path / "paper.pdf").stat().st_size > 5000
