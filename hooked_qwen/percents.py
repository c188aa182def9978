"""How shares are written as percentages, on the terminal as on pages (`numbers.mjs`)."""

import math


def percent(share: float) -> str:
    """`63%`, `5.3%`, `0.012%`: whole from 10 on, two significant digits below.

    Halves go away from zero, where `{:.0%}` makes them even: 0.625 is `63%`. What the binary
    number lacks of a half (0.285) does not count.
    """
    size = float(f"{100 * abs(share):.12g}")
    exponent = int(f"{size:.11e}".rpartition("e")[2])
    digits = 0 if size >= 10 else 1 - exponent
    # Once more: 2.675 times 100 is a little less than 267.5.
    scaled = float(f"{size * 10.0**digits:.12g}")
    text = f"{math.floor(scaled + 0.5) / 10.0**digits:.{digits}f}"
    text = text.rstrip("0").rstrip(".") if digits else text
    return f"{'-' if share < 0 and text != '0' else ''}{text}%"
