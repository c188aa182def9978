"""The small Qwen3 that ships with the project, and the English it was trained on.

`PATH` is an ordinary Hugging Face model folder. `language` makes the text and the prompt
pairs; it is imported on its own, so that reading `PATH` costs nothing.
"""

from pathlib import Path

PATH = Path(__file__).parent / "model"
DICTIONARIES = Path(__file__).parent / "dictionaries"
