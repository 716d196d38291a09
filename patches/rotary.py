"""Frequencies put on a model and taken off, and which of them each layer rotates by."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from itertools import chain, product
from typing import Any

import torch
from torch import Tensor

from patches.base import Layout, PatchError, Rope
from patches.checks import attention_layers, few_logits, has_values, name_of
from patches.hook import AttentionFunction
from patches.rotation import cos_sin, rotate, split
from patches.sets import PATCHED, RotarySet

__all__ = [
    "Rotations",
    "changed",
    "check_frequencies",
    "first_of",
    "frequencies",
    "layer_ropes",
    "layer_rotations",
    "settings",
    "still",
]

LAYOUTS = [Layout(a, b, c) for a, b, c in product((False, True), repeat=3)]
CLOSE = 0.02  # of the largest channel; a wrong layout is off by as much as the channels themselves


def check_frequencies(model: Any, shipped: Iterable[RotarySet]) -> None:
    """Make sure that new frequencies reach the logits: zero ones must move them.

    Raises:
        PatchError: they do not.
    """
    if not has_values(model):
        return
    plain = few_logits(model)
    with frequencies({rotary: still(rotary) for rotary in shipped}):
        if torch.equal(few_logits(model), plain):
            raise PatchError(
                f"{name_of(model)}: frequencies do not reach the logits; model not supported"
            )


def still(rotary: RotarySet) -> Rope:
    """Frequencies that rotate nothing: cos = 1, sin = 0."""
    return Rope(torch.zeros_like(rotary.inv_freq), 1.0, 1.0)


@contextmanager
def frequencies(ropes: Mapping[RotarySet, Rope]) -> Iterator[None]:
    """Let rotary embeddings use these frequencies, whatever their type recomputes.

    Raises:
        PatchError: one already has frequencies that are not its own.
    """
    if any(rotary.rope_type == PATCHED for rotary in ropes):
        raise PatchError("the model already has a patch on; compose patches with '+' instead")
    with ExitStack() as stack:
        for rotary, rope in ropes.items():
            stack.enter_context(changed(rotary.module, rotary.attributes(rope)))
        yield


@contextmanager
def settings(target: Any, saved: dict[str, Any]) -> Iterator[None]:
    """Put attributes back on the way out."""
    try:
        yield
    finally:
        for name, value in saved.items():
            setattr(target, name, value)


@contextmanager
def changed(target: Any, values: Mapping[str, Any]) -> Iterator[None]:
    """Give something other attributes for the body of a `with`."""
    with settings(target, {name: getattr(target, name) for name in values}):
        for name, value in values.items():
            setattr(target, name, value)
        yield


Rotation = tuple[RotarySet | None, Layout]
Rotations = Mapping[int, Rotation]


def layer_rotations(
    model: Any,
    sets: Sequence[RotarySet],
    attach: Callable[[AttentionFunction], AbstractContextManager[None]],
) -> Rotations:
    """Measure which frequencies each layer rotates by, and which channels; None: it does not.

    Queries and keys of a few tokens are compared with and without a rotation by frequencies that
    differ from set to set, while attention adds nothing, so that both times they are the same.
    A layer that nothing explains gets the usual layout: the identity check then has the difference.

    Args:
        model: causal LM.
        sets: its sets of frequencies.
        attach: puts an attention function on the model.
    """
    if not has_values(model):  # the usual, which every layout costs as much as
        return dict.fromkeys(attention_layers(model), (sets[0], Layout()))
    trials = {one: replace(still(one), inv_freq=marks(i, one)) for i, one in enumerate(sets)}
    plain = captured(model, {rotary: still(rotary) for rotary in sets}, attach)
    if not sets:
        return dict.fromkeys(plain, (None, Layout()))
    turned = captured(model, trials, attach)
    found: dict[int, Rotation] = {}
    for layer, before in plain.items():
        candidates: list[tuple[Rotation, Rope]] = [
            ((rotary, layout), replace(trial, layout=layout))
            for (rotary, trial), layout in product(trials.items(), LAYOUTS)
            if trial.rotary_dim <= min(x.shape[-1] for x in before)
        ]
        nothing: tuple[Rotation, Rope] = ((None, Layout()), unrotated(trials[sets[0]]))
        skewed = (skewed_by(before, turned[layer], rotation, rope) for rotation, rope in candidates)
        fitting = (
            rotation
            for rotation, rope in chain(candidates, [nothing], skewed)
            if explains(before, turned[layer], rope)
        )
        found[layer] = next(fitting, (sets[0], Layout()))
    return found


def passes_factor(
    model: Any,
    rotations: Rotations,
    sets: Sequence[RotarySet],
    attach: Callable[[AttentionFunction], AbstractContextManager[None]],
) -> bool:
    """True if an attention factor reaches every layer's attention; a norm after it undoes it."""
    if not has_values(model):
        return True
    doubled = {rotary: replace(still(rotary), attention_factor=2.0) for rotary in sets}
    plain = captured(model, {rotary: still(rotary) for rotary in sets}, attach)
    after, ropes = captured(model, doubled, attach), layer_ropes(rotations, doubled)
    return all(explains(plain[layer], after[layer], ropes[layer]) for layer in plain)


def layer_ropes(rotations: Rotations, ropes: Mapping[RotarySet, Rope]) -> dict[int, Rope]:
    """What each layer rotates by, given the frequencies of each set."""
    usual = first_of(ropes)
    return {
        layer: replace(ropes[rotary], layout=layout) if rotary else unrotated(usual)
        for layer, (rotary, layout) in rotations.items()
    }


def first_of(ropes: Mapping[RotarySet, Rope]) -> Rope:
    """The frequencies of the first set, which most layers have; no pairs where there is none."""
    return next(iter(ropes.values()), Rope(torch.zeros(0), 1.0, 1.0))


def unrotated(rope: Rope) -> Rope:
    """A rope without pairs."""
    return replace(rope, inv_freq=rope.inv_freq[:0], attention_factor=1.0)


def marks(index: int, rotary: RotarySet) -> Tensor:
    """Frequencies that tell pairs and sets from each other, rounded as its own [rotary_dim/2]."""
    pairs = torch.arange(rotary.inv_freq.numel(), device=rotary.inv_freq.device)
    return (0.1 + (0.618 * pairs + 0.377 * index) % 1).to(rotary.inv_freq)


def captured(
    model: Any,
    ropes: Mapping[RotarySet, Rope],
    attach: Callable[[AttentionFunction], AbstractContextManager[None]],
) -> dict[int, tuple[Tensor, Tensor]]:
    """Queries and keys that reach the attention of each layer while attention gives zeros."""
    found: dict[int, tuple[Tensor, Tensor]] = {}

    def function(
        module: Any, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, None]:
        found.setdefault(module.layer_idx, (query, key))
        batch, heads, q_len, _ = query.shape
        return value.new_zeros(batch, q_len, heads, value.shape[-1]), None

    with frequencies(ropes), attach(function):
        try:
            few_logits(model)
        except (AttributeError, TypeError) as error:
            raise PatchError(
                f"{name_of(model)}: its own code does not run around the hook, most often as it "
                f"selects keys by an attention mask ({error}); model not supported"
            ) from error
    return found


def skewed_by(
    before: tuple[Tensor, Tensor], after: tuple[Tensor, Tensor], rotation: Rotation, rope: Rope
) -> tuple[Rotation, Rope]:
    """A candidate with the weights that a norm after the rotation would have, by least squares."""
    fitted = []
    for x, turned in zip(before, after, strict=True):
        cos, sin = cos_sin(x, torch.arange(x.shape[2]), rope)
        _, low, high, _ = split(x, rope)
        share = high * sin  # turned low = low cos - skew high sin
        missing = low * cos - split(turned, rope)[1]
        fitted.append((missing * share).sum((0, 1, 2)) / share.square().sum((0, 1, 2)))
    layout = replace(rope.layout, skews=(fitted[0], fitted[1]))
    return (rotation[0], layout), replace(rope, layout=layout)


def explains(before: tuple[Tensor, Tensor], after: tuple[Tensor, Tensor], rope: Rope) -> bool:
    """True if queries and keys become what they are by this rotation."""
    for x, wanted, skew in zip(before, after, rope.layout.skews, strict=True):
        got = rotate(x, torch.arange(x.shape[2]), rope, skew)
        if not bool((got - wanted).abs().max() <= CLOSE * wanted.abs().max()):
            return False
    return True
