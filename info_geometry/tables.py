"""Tables: printed, and as files."""

import csv
import json

import numpy as np

from info_geometry.script import replacing, shown


def print_matrix(tasks, values, errors=None, scale=1000, columns=None):
    """Values for pairs of tasks, times `scale`, as a matrix, with standard errors where there are some; for a pair
    (a, b) that is not there, that of (b, a)."""
    columns, errors = columns or tasks, errors or {}

    def cell(a, b):
        pair = (a, b) if (a, b) in values else (b, a)
        if pair not in values:
            return "-"
        error = f" ±{_digits(scale * errors[pair], 2)}" if pair in errors else ""
        return _digits(scale * values[pair], 4) + error

    rows = [["", *columns], *([a, *(cell(a, b) for b in columns)] for a in tasks)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for first, *rest in rows:
        print(f"{first:<{widths[0]}}" + "".join(f"  {text:>{w}}" for text, w in zip(rest, widths[1:], strict=True)))


def _digits(x, n):
    """A number with n digits, and without an exponent."""
    return np.format_float_positional(x, precision=n, unique=False, fractional=False, trim="-")


def number(x):
    """A number as JSON has it: what is not one is null."""
    return float(x) if np.isfinite(x) else None


def write_csv(path, header, rows):
    with replacing(path) as partial, open(partial, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows([float(x) if isinstance(x, float) else x for x in row] for row in rows)
    print(shown(path))


def write_json(path, content):
    with replacing(path) as partial:
        partial.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    print(shown(path))
