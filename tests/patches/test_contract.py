"""What every patch of the registry promises, on real models (methods.md, invariants 1, 3, 5, 7)."""

import itertools
from collections.abc import Iterator
from functools import cache

import pytest
import torch
from transformers import DynamicCache

from patches import PATCHES, lookup, parse
from patches.apply import apply
from patches.base import Patch, PatchError
from tests.models import FAMILIES, TRAINED_LENGTH, WINDOWED, logits, state, tiny, tokens, windowed

LENGTH = 4 * TRAINED_LENGTH
REQUIRED = {"temperature": "temperature(value=1.2)", "rope-base": "rope-base(theta=5e4)"}
SPECS = [REQUIRED.get(name, name) for name in PATCHES]
HOMES = {"hierarchical": "gpt2"}  # models with what the others lack
HOSTS = {"sinks": "window(size=24)+", "native-window": "ntk+"}
DECODING = [name for name, entry in PATCHES.items() if entry.seam == "decoding"]
CLASHES = {  # seams, each refused by name
    "attention-buckets": ("frequencies",),
    "hierarchical": ("frequencies", "bands"),
    "pcw": ("bands", "visible"),
}
PARTNERS = ("ntk", "rerope(window=8)", "logn", "window(size=24)")
STACKS = ["rerope+logn+ntk", "window(size=9)+sinks(size=3)", "dca(variant=code)+yarn"]


def home(spec: str, family: str = "llama"):
    """A model that a patch can go on."""
    return tiny(next((there for name, there in HOMES.items() if name in spec), family))


def plain_logits(spec: str, model, length: int) -> torch.Tensor:
    """Logits without a patch, of as many tokens as the model has positions."""
    return logits(model, tokens(length)[:, : TRAINED_LENGTH if "hierarchical" in spec else None])


def chunked(model, ids, bounds: list[int], **inputs) -> torch.Tensor:
    """Logits of a prefill in pieces through one cache."""
    cache, out = DynamicCache(config=model.config), []
    with torch.inference_mode():
        for first, stop in itertools.pairwise(bounds):
            pieces = {
                name: x[:, :stop] if name == "attention_mask" else x[:, first:stop]
                for name, x in inputs.items()
            }
            out.append(model(ids[:, first:stop], past_key_values=cache, use_cache=True, **pieces))
    return torch.cat([piece.logits for piece in out], dim=1)


@pytest.mark.parametrize("family", FAMILIES)
def test_no_patch_equals_the_untouched_model(family: str) -> None:
    model, ids = tiny(family), tokens(LENGTH)
    plain = logits(model, ids)
    with apply(model, parse("rerope(window=1k)"), LENGTH) as applied:
        assert applied.attention == "blockwise"
        torch.testing.assert_close(logits(model, ids), plain, atol=1e-5, rtol=0)


@pytest.mark.parametrize("family", WINDOWED)
def test_no_patch_keeps_the_windows_of_a_model_if_told_to(family: str) -> None:
    model, ids = windowed(family), tokens(LENGTH)
    plain = logits(model, ids)
    with apply(model, parse("rerope(window=1k)"), LENGTH):
        assert (logits(model, ids) - plain).abs().max() > 1e-2
    with apply(model, parse("rerope(window=1k)+native-window"), LENGTH) as applied:
        torch.testing.assert_close(logits(model, ids), plain, atol=1e-5, rtol=0)
    assert applied.notes == ()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("spec", ["rerope(window=8)+logn", "ntk+logn", "dca", "yarn"])
def test_every_family_reads_in_pieces_as_at_once(family: str, spec: str) -> None:
    model, ids = tiny(family), tokens(LENGTH)
    with apply(model, parse(spec), LENGTH):
        whole = logits(model, ids)
        pieces = chunked(model, ids, [0, 33, 90, 91, LENGTH - 2, LENGTH - 1, LENGTH])
    torch.testing.assert_close(pieces, whole, atol=1e-4, rtol=0)


@pytest.mark.parametrize("spec", SPECS + STACKS)
def test_prefill_and_decode_equal_one_forward(spec: str) -> None:
    model, ids = home(spec), tokens(LENGTH)
    with apply(model, parse(spec), LENGTH):
        whole = logits(model, ids)
        pieces = chunked(model, ids, [0, 40, 77, *range(100, LENGTH + 1)])
    torch.testing.assert_close(pieces, whole, atol=1e-4, rtol=0)
    assert whole.isfinite().all()


@pytest.mark.parametrize("spec", SPECS + STACKS)
def test_left_padding_changes_nothing_and_rows_are_alone(spec: str) -> None:
    model = home(spec, "qwen2")
    rows = tokens(LENGTH, batch=2)
    pad = 37
    ids, mask = rows.clone(), torch.ones_like(rows)
    ids[0, :pad], mask[0, :pad] = 5, 0
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    inputs = {"attention_mask": mask, "position_ids": positions}
    with apply(model, parse(spec), LENGTH):
        both = logits(model, ids, **inputs)
        short, full = logits(model, ids[:1, pad:]), logits(model, ids[1:])
        pieces = chunked(model, ids, [0, 20, 60, LENGTH - 1, LENGTH], **inputs)
    torch.testing.assert_close(both[:1, pad:], short, atol=1e-4, rtol=0)
    torch.testing.assert_close(both[1:], full, atol=1e-4, rtol=0)
    torch.testing.assert_close(pieces[:, pad:], both[:, pad:], atol=1e-4, rtol=0)


@pytest.mark.parametrize("spec", SPECS + STACKS)
def test_the_model_is_restored(spec: str) -> None:
    model, ids = home(spec, "phi3"), tokens(LENGTH)
    before, plain = state(model), plain_logits(spec, model, LENGTH)
    with apply(model, parse(spec), LENGTH):
        logits(model, ids)
    assert state(model) == before
    with pytest.raises(ZeroDivisionError), apply(model, parse(spec), LENGTH):
        raise ZeroDivisionError
    assert state(model) == before
    assert torch.equal(plain_logits(spec, model, LENGTH), plain)


@pytest.mark.parametrize("name", PATCHES)
def test_within_the_trained_length_a_patch_is_the_plain_model(name: str) -> None:
    spec = REQUIRED.get(name, name)
    model, ids = home(name), tokens(TRAINED_LENGTH)
    plain = logits(model, ids)
    with apply(model, parse(spec), TRAINED_LENGTH):
        patched = logits(model, ids)
    same = torch.allclose(patched, plain, atol=1e-5, rtol=0)
    assert same != ("identity" in lookup(name).exceptions)


@pytest.mark.parametrize(
    "name",
    [name for name in PATCHES if not (PATCHES[name].baseline or name in DECODING or name in HOMES)],
)
def test_beyond_the_trained_length_a_patch_does_something(name: str) -> None:
    model = windowed("mistral") if name == "native-window" else tiny("llama")
    ids, host = tokens(LENGTH), HOSTS.get(name, "")
    with apply(model, parse(host.rstrip("+") or "none"), LENGTH):
        plain = logits(model, ids)
    with apply(model, parse(host + REQUIRED.get(name, name)), LENGTH):
        assert (logits(model, ids) - plain).abs().max() > 1e-3


@pytest.mark.parametrize("name", DECODING)
def test_a_decoding_method_leaves_every_single_forward_alone(name: str) -> None:
    """What it does to answers is in tests/harness/test_decoding.py: it joins several forwards."""
    model, ids = tiny("llama"), tokens(LENGTH)
    with apply(model, parse(name), LENGTH):
        assert torch.equal(logits(model, ids), run(parse("none")))


def stacks() -> Iterator[tuple[str, str]]:
    """Every patch with a partner on each other seam."""
    for name in PATCHES:
        for partner in PARTNERS:
            seam = PATCHES[partner.partition("(")[0]].seam
            if PATCHES[name].seam not in (seam, "input") and seam not in CLASHES.get(name, ()):
                yield REQUIRED.get(name, name), partner


@pytest.mark.parametrize(("spec", "partner"), list(stacks()))
def test_a_patch_composes_with_each_other_seam_in_any_order(spec: str, partner: str) -> None:
    one, other = parse(f"{spec}+{partner}"), parse(f"{partner}+{spec}")
    assert str(one) == str(other) == str(parse(str(one)))
    first, second = run(one), run(other)
    assert torch.equal(first, second)
    assert first.isfinite().all()


@pytest.mark.parametrize("name", CLASHES)
def test_a_method_refuses_just_the_seams_that_it_cannot_stand_beside(name: str) -> None:
    for partner in PARTNERS:
        if PATCHES[partner.partition("(")[0]].seam in CLASHES[name]:
            for spec in (f"{name}+{partner}", f"{partner}+{name}"):
                with pytest.raises(PatchError, match=r"'.*': \w+"):
                    parse(spec)


@cache
def run(patch: Patch) -> torch.Tensor:
    """Logits of a patched tiny model."""
    model, ids = home(str(patch)), tokens(LENGTH)
    with apply(model, patch, LENGTH):
        return logits(model, ids)
