"""The pair of prompts of small runs."""

from circuits.runs.prompt_sets import one_prompt

PAIR = one_prompt("The judges by the bucket", "The judge by the bucket", [" are"], [" is"])
