"""What nodes are set to, when they are ablated and when an effect is estimated."""

from typing import Literal

FixedBaselineValue = Literal["zero", "mean"]
"""Zero, or the mean over clean prompts: the same on every prompt."""
BaselineValue = Literal["patch", FixedBaselineValue]
"""The same, or the node's value on the prompt's patch."""
