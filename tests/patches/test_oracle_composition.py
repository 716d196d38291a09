"""Composition: any order of `+` is one patch, seams leave each other alone, clashes are named."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
import torch

from patches import PatchError, parse
from patches.attention import attend
from tests.patches.cases import FULL, PARTIAL, Problem, expected, inputs, plan_of

STACKS = [
    "ntk(factor=4)+rerope(window=7)+logn",
    "yarn(factor=4,ramp=code)+dca(chunk_size=7,local_window=3)+window(size=11)",
    "pi(factor=2)+window(size=9)+sinks(size=2)",
    "self-extend(neighbor_window=8,group_size=4)+infoscale+temperature(value=1.5)",
    "llama3(factor=8)+leaky-rerope(window=7,k=4)+window(size=15)+sinks(size=2)",
]


def orders(spec: str) -> Iterator[str]:
    for order in itertools.permutations(spec.split("+")):
        yield "+".join(order)


@pytest.mark.parametrize("problem", [FULL, PARTIAL], ids=["full", "partial"])
@pytest.mark.parametrize("spec", STACKS)
def test_any_order_gives_the_oracle_and_one_canonical_spec(spec: str, problem: Problem) -> None:
    query, key, value = inputs(problem)
    outputs = []
    for ordered in orders(spec):
        plan = plan_of(ordered, problem)
        out = attend(query, key, value, plan, scaling=problem.scaling, q_start=0, k_start=0)
        outputs.append(out)
        torch.testing.assert_close(out, outputs[0], rtol=0, atol=1e-13)
    torch.testing.assert_close(outputs[0], expected(spec, problem)[0], rtol=0, atol=1e-10)
    assert len({str(parse(ordered)) for ordered in orders(spec)}) == 1


@pytest.mark.parametrize("spec", STACKS)
def test_parsed_sum_equals_sum_of_parsed(spec: str) -> None:
    first, *others = (parse(part) for part in spec.split("+"))
    for other in others:
        first = first + other
    assert str(first) == str(parse(spec))


@pytest.mark.parametrize("spec", ["none+logn", "logn+none", "none+rerope(window=7)", "none+none"])
def test_none_is_the_unit_of_composition(spec: str) -> None:
    rest = [part for part in spec.split("+") if part != "none"]
    assert str(parse(spec)) == str(parse(rest[0] if rest else "none"))


RATES = [
    "pi(factor=2)",
    "ntk-old(factor=2)",
    "ntk(factor=2)",
    "ntk-fixed(factor=2)",
    "ntk-mixed(factor=2)",
    "ntk-dynamic(factor=2)",
    "ntk-by-parts(factor=2)",
    "yarn(factor=2)",
    "llama3(factor=2)",
    "rope-base(theta=20000)",
]
BANDS = [
    "rerope(window=8)",
    "leaky-rerope(window=8,k=4)",
    "self-extend(neighbor_window=8,group_size=4)",
    "dca(chunk_size=8,local_window=4)",
    "string(shift=8,window=4)",
    "lm-infinite(window=8,sinks=4)",
    "streaming(window=8,sinks=4)",
]
CLASHES = [*itertools.combinations(RATES, 2), *itertools.combinations(BANDS, 2)]


@pytest.mark.parametrize(("one", "other"), CLASHES)
def test_two_methods_on_one_seam_are_refused_by_name(one: str, other: str) -> None:
    for first, second in ((one, other), (other, one)):
        with pytest.raises(PatchError) as caught:
            parse(f"{first}+logn+{second}")
        message = str(caught.value)
        assert "\n" not in message
        assert one.split("(")[0] in message
        assert other.split("(")[0] in message


@pytest.mark.parametrize(
    "spec", ["rerope(window=8)+rerope(window=8)", "ntk(factor=2)+ntk(factor=4)"]
)
def test_a_method_twice_on_one_seam_is_refused(spec: str) -> None:
    with pytest.raises(PatchError):
        parse(spec)


@pytest.mark.parametrize("band", BANDS)
@pytest.mark.parametrize("rates", ["ntk(factor=4)", "yarn(factor=4,ramp=code)"])
def test_every_band_takes_every_other_seam(rates: str, band: str) -> None:
    spec = f"{rates}+{band}+logn+window(size=13)+sinks(size=2)"
    query, key, value = inputs(PARTIAL)
    plan = plan_of(spec, PARTIAL)
    out = attend(query, key, value, plan, scaling=PARTIAL.scaling, q_start=0, k_start=0)
    torch.testing.assert_close(out, expected(spec, PARTIAL)[0], rtol=0, atol=1e-10)
