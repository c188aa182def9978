"""Dunefsky et al.'s transcoders: pickled with their configuration object, so refused.

Reading one would import and run whatever it names. Source of the models: arXiv:2406.11944.
"""

from typing import Any, NoReturn

from saes.formats.layout import FileLayout


def _refused(place: Any) -> NoReturn:
    """Raise `ValueError`: nothing in such a file is read."""
    file = next(name for name in place.names if name.endswith(".pt"))
    raise ValueError(
        f"{place.label}/{file} is of no layout that can be read without running what is in it: "
        "where it was made, load it and save W_enc, W_dec, b_enc and b_dec_out with their "
        "cfg.json as SAELens does, then give that folder"
    )


LAYOUT = FileLayout(
    name="dunefsky",
    matches=lambda place: any(name.endswith(".pt") for name in place.names),
    find=_refused,
    load=_refused,
)
