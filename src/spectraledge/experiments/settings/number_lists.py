"""Lists of numbers in one word of text, as eigenvalues and singular values are given."""

from __future__ import annotations

import math


def number_list(field: str, text: str, *, zero: bool = False) -> tuple[float, ...]:
    """Numbers of "3,2,1" or of "power:n,exponent", which is j^-exponent for j = 1..n.

    Raises:
        ValueError: If the text is neither, or a number not finite, negative, or 0 without ``zero``; in this
            package's words.

    Example:
        >>> number_list("eigenvalues", "power:3,1")
        (1.0, 0.5, 0.3333333333333333)
    """
    head, colon, tail = text.strip().partition(":")
    try:
        if colon and head == "power":
            count, exponent = tail.split(",")
            values = tuple(float(j) ** -float(exponent) for j in range(1, int(count) + 1))
        else:
            values = tuple(float(word) for word in text.split(","))
    except (ValueError, OverflowError):
        values = ()
    if not values or not all(math.isfinite(value) and (value > 0 or (zero and value == 0)) for value in values):
        raise ValueError(
            f"{field} must list {'numbers of at least 0' if zero else 'positive numbers'}, or read power:n,exponent; "
            f"got {text}. "
            f"Write for example {field}=1,0.3,0.1 or {field}=power:50,1."
        )
    return values
