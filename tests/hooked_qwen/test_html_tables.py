"""Tables and paragraphs of a notebook: texts are whole and mean nothing to the page."""

import pandas as pd

from hooked_qwen.html_tables import html_rows, html_table, paragraph


def test_texts_are_whole_and_escaped():
    long = "<i>a</i> & " * 20 + "b"
    for shown in (html_rows(["text"], [[long]]), paragraph(long)):
        assert "&lt;i&gt;a&lt;/i&gt; &amp; " * 20 + "b" in shown
        assert "<i>" not in shown


def test_numbers_have_three_digits_after_the_point():
    shown = html_table(pd.DataFrame({"x": [1 / 3]}, index=["a third"]))
    assert "<th>a third</th>" in shown
    assert "<td>0.333</td>" in shown
