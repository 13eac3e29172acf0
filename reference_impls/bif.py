"""Bayesian networks from BIF files, the interchange format in which the classical ones are kept.

    network unknown { }
    variable tub { type discrete [ 2 ] { yes, no }; }
    probability ( tub | asia ) { (yes) 0.05, 0.95;  (no) 0.01, 0.99; }

A row of a conditional table names the states of the parents; `table` gives all rows of a variable without parents, or
all numbers in one list with the variable itself running slowest; `default` is the row of all that are not named.
Comments and properties are skipped. Numbers are printed with few digits, so a row may miss 1 by half a unit of the last
digit of each; such rows are divided by their sum, and anything farther from 1 is an error.

Source: Cozman (1998), The Interchange Format for Bayesian Networks, www.cs.cmu.edu/~fgcozman.
"""

import gzip
import math
import re
from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from itertools import product
from pathlib import Path

import torch
from torch import Tensor

from reference_impls.bayesian_network import BayesianNetwork

TOKEN = re.compile(r'"[^"]*"|[{}()\[\],;|]|[^\s{}()\[\],;|"]+')
COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
PROPERTY = re.compile(r'\bproperty\b(?:"[^"]*"|[^;"])*;')

Rows = dict[tuple[str, ...] | None, list[str]]
"""Numbers as they are printed, by the states of the parents; under None those of `default`."""


def read(path: str | Path) -> BayesianNetwork:
    """The network in a .bif or .bif.gz file, in float64, with the names of its variables and their states."""
    path = Path(path)
    try:
        data = path.read_bytes()
        text = (gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data).decode("utf-8")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise ValueError(f"path {path} cannot be read as a BIF file ({error}); give a .bif or .bif.gz file") from error
    try:
        return parse(text)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def parse(text: str) -> BayesianNetwork:
    """The network that the text of a BIF file describes."""
    tokens = _Tokens(TOKEN.findall(PROPERTY.sub("", COMMENT.sub(" ", text))))
    labels: dict[str, list[str]] = {}
    families: dict[str, tuple[list[str], Rows]] = {}
    while not tokens.at_end():
        match tokens.take("network", "variable", "probability"):
            case "network":
                tokens.skip_block()
            case "variable":
                name, states = _variable(tokens)
                labels[name] = states
            case "probability":
                name, parents, rows = _probability(tokens)
                families[name] = parents, rows
    return _network(labels, families)


class _Tokens:
    """Words and signs, taken one after the other."""

    def __init__(self, tokens: list[str]):
        self.tokens, self.place = tokens, 0

    def at_end(self) -> bool:
        return self.place == len(self.tokens)

    def peek(self) -> str:
        return "the end" if self.at_end() else self.tokens[self.place]

    def take(self, *expected: str) -> str:
        """The next word; an error if it is none of those expected."""
        word = self.peek()
        if self.at_end() or (expected and word not in expected):
            before = " ".join(self.tokens[max(0, self.place - 5) : self.place])
            raise ValueError(f"after '{before}' comes {word!r} where {' or '.join(expected) or 'more'} should be")
        self.place += 1
        return word.strip('"')

    def until(self, *ends: str) -> list[str]:
        """The words before the next of these signs, without commas; takes the sign too."""
        words = []
        while self.peek() not in ends:
            word = self.take()
            if word in ("{", "}", "(", ")", ";"):
                raise ValueError(f"{word!r} stands where {' or '.join(ends)} should be")
            words.append(word)
        self.take(*ends)
        return [word for word in words if word != ","]

    def skip_block(self) -> None:
        while self.take() != "{":
            pass
        while self.take() != "}":
            pass


def _variable(tokens: _Tokens) -> tuple[str, list[str]]:
    name = tokens.take()
    for word in ("{", "type", "discrete", "["):
        tokens.take(word)
    size = tokens.take()
    for word in ("]", "{"):
        tokens.take(word)
    states = tokens.until("}")
    tokens.take(";")
    tokens.take("}")
    if size != str(len(states)) or len(set(states)) < len(states):
        raise ValueError(f"variable {name} should have {size} different states, not {states}")
    return name, states


def _probability(tokens: _Tokens) -> tuple[str, list[str], Rows]:
    tokens.take("(")
    name = tokens.take()
    parents = tokens.until(")") if tokens.take("|", ")") == "|" else []
    tokens.take("{")
    rows: Rows = {}
    while (word := tokens.take("(", "table", "default", "}")) != "}":
        key = {"(": lambda: tuple(tokens.until(")")), "table": lambda: (), "default": lambda: None}[word]()
        rows[key] = tokens.until(";")
    return name, parents, rows


def _network(labels: dict[str, list[str]], families: dict[str, tuple[list[str], Rows]]) -> BayesianNetwork:
    names = list(labels)
    known = set(names)
    if missing := [name for name in names if name not in families]:
        raise ValueError(f"no probability block for the variables {missing}")
    for name, (parents, _) in families.items():
        if unknown := [n for n in (name, *parents) if n not in known]:
            raise ValueError(f"probability of {name} names {unknown}, which no variable block declares")
    place = {name: i for i, name in enumerate(names)}
    parents = [[place[parent] for parent in families[name][0]] for name in names]
    tables = [_table(name, *families[name], labels) for name in names]
    return BayesianNetwork(parents, tables, names=names, labels=[labels[name] for name in names])


def _table(name: str, parents: list[str], rows: Rows, labels: dict[str, list[str]]) -> Tensor:
    """(K_pa, ..., K), from rows by state, or from one list."""
    shape = [len(labels[parent]) for parent in parents]
    k = len(labels[name])
    if parents and () in rows:
        numbers = rows[()]
        count = math.prod(shape)
        if len(numbers) != k * count:
            raise ValueError(f"table of {name} should have {k * count} numbers, not {len(numbers)}")
        listed = [numbers[i::count] for i in range(count)]
    else:
        listed = list(_listed(name, parents, rows, labels))
    return torch.tensor([_row(name, row, k) for row in listed], dtype=torch.float64).reshape(*shape, k)


def _listed(name: str, parents: list[str], rows: Rows, labels: dict[str, list[str]]) -> Iterator[list[str]]:
    """The row of each state of the parents, the last of them running fastest."""
    states = set(product(*(labels[parent] for parent in parents)))
    if unknown := [key for key in rows if key is not None and key not in states]:
        raise ValueError(f"probability of {name} has a row for {unknown[0]}, which is no state of {parents}")
    for key in product(*(labels[parent] for parent in parents)):
        row = rows.get(key, rows.get(None))
        if row is None:
            raise ValueError(f"probability of {name} has no row for {key}; add it, or a default")
        yield row


def _row(name: str, printed: list[str], k: int) -> list[float]:
    """Numbers that sum to 1 as far as their digits tell, divided by their sum."""
    try:
        numbers = [Decimal(number) for number in printed]
    except InvalidOperation:
        raise ValueError(f"probability of {name} has {printed}, not all numbers") from None
    total = sum(numbers)
    units = [Decimal(1).scaleb(int(number.as_tuple().exponent)) for number in numbers if number.is_finite()]
    if len(units) != k or not all(0 <= number <= 1 for number in numbers):
        raise ValueError(f"probability of {name} should have {k} numbers between 0 and 1 in each row, not {printed}")
    if not abs(total - 1) <= sum(units) / 2:
        raise ValueError(f"probability of {name}: the row {printed} sums to {total}, not 1 as far as its digits tell")
    return [float(number / total) for number in numbers]
