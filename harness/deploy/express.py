"""Finds the rope parameters that give what a patch gives, and checks that they do.

A small random model of the same config is made twice, once patched and once from the parameters,
and has to give the same logits.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from torch import Tensor

from harness.checkpoint import open_causal, quiet
from harness.deploy.engines import ENGINES, Engine, Setting
from harness.errors import HarnessError
from harness.lengths import render_length
from harness.models import MODELS
from harness.twin import FARTHEST, far_logits, small_model
from patches.apply import apply, shipped_ropes, trained_length
from patches.base import Extent, Patch, Rope, RopeParameters
from patches.config import head_dim
from patches.windows import hiding

__all__ = ["Expression"]

FREQUENCIES_CLOSE = 2e-6  # of each frequency: a few roundings of float32
LOGITS_CLOSE = 0.01  # of what the patch changes
LEAST = 1e-3  # that a patch must change logits by
OWN = ("rope_theta", "partial_rotary_factor", "mrope_section", "mrope_interleaved")  # no scaling


@dataclass(frozen=True)
class _Found:
    """Parameters that give a patch's frequencies, and how near they came."""

    parameters: dict[str, Any]
    frequencies: float
    logits: float
    effect: float

    @property
    def is_equal(self) -> bool:
        """True if frequencies and logits are the patch's but for rounding."""
        near = self.logits <= LOGITS_CLOSE * self.effect
        return near and self.frequencies <= FREQUENCIES_CLOSE


@dataclass(frozen=True)
class _Target:
    """A small model, its frequencies as shipped and as patched, and its patched logits."""

    model: Any
    extent: Extent
    shipped: Rope
    wanted: Rope
    logits: Tensor
    effect: float

    def reached(self, config: Any, parameters: dict[str, Any]) -> _Found:
        """How near the same model comes with these parameters in its config."""
        length = self.extent.context_length
        made = small_model(config, parameters, length, self.model.state_dict())
        rope = next(iter(shipped_ropes(made, self.extent).values()))
        apart = float((far_logits(made, length) - self.logits).abs().max())
        return _Found(parameters, _apart(rope, self.wanted), apart, self.effect)


@dataclass(frozen=True)
class Expression:
    """One patch on one model for one engine."""

    name: str
    patch: Patch
    length: int
    trained: int | None
    engine: str

    def export(self) -> tuple[str, str]:
        """The setting, and what was checked."""
        engine = ENGINES[self.engine]
        checkpoint = open_causal(self.name)
        with quiet():
            found = self._search(checkpoint.config, engine)
        checked = (
            f"checked with transformers {transformers.__version__}, on a small model of this "
            f"config at positions below {min(self.length, FARTHEST)}: frequencies within "
            f"{found.frequencies:.0e}, logits within {found.logits:.0e} of the patched model's, "
            f"which the patch moves by {found.effect:.1g}"
        )
        note = f"\n{engine.note}" if engine.note else ""
        entry = MODELS.get(self.name)
        served = self.name if entry is None else entry.source
        if served.startswith("assets/"):
            served = str(checkpoint.directory)
        setting = Setting(served, self.length, found.parameters)
        return engine.render(setting), checked + note

    def _search(self, config: Any, engine: Engine) -> _Found:
        """The first expression of the patch that the engine takes and that passes the check.

        Raises:
            HarnessError: there is none.
        """
        self._check_kind(config, engine)
        target = self._target(config)
        reasons = []
        for candidate in self._candidates(target.shipped, target.wanted, target.extent):
            reason = engine.refuses(candidate, self.length)
            if not reason:
                try:
                    found = target.reached(config, _merged(config, candidate))
                except HarnessError as error:  # transformers fails on some configs with some kinds
                    reasons.append(f"rope_type {candidate['rope_type']}: {error}")
                    continue
                if found.is_equal:
                    return found
                apart = f"{found.logits:.1e}"
                reason = f"rope_type {candidate['rope_type']} gives other logits, by {apart}"
            reasons.append(reason)
        raise HarnessError(f"'{self.patch}' has no setting of {self.engine}: {'; '.join(reasons)}")

    def _target(self, config: Any) -> _Target:
        """What the patch does to a small model.

        Raises:
            HarnessError: it does nothing there, or does what no setting says.
        """
        model = small_model(config)
        extent = Extent(self.length, self.trained or trained_length(config), head_dim(model))
        _check_windows(model.config, extent)
        ropes = list(shipped_ropes(model, extent).values())
        if any(not torch.equal(rope.inv_freq, ropes[0].inv_freq) for rope in ropes):
            raise HarnessError(
                f"--model {self.name}: its layers rotate by {len(ropes)} sets of frequencies, "
                "which one setting cannot hold"
            )
        wanted = self._wanted(ropes[0], extent)
        plain = far_logits(model, self.length)
        with apply(model, self.patch, self.length, self.trained):
            patched = far_logits(model, self.length)
        effect = float((patched - plain).abs().max())
        if effect < LEAST:
            raise HarnessError(
                f"--len {self.length}: '{self.patch}' changes nothing there; give a length beyond "
                f"the trained {render_length(extent.original_max_position_embeddings)}"
            )
        return _Target(model, extent, ropes[0], wanted, patched, effect)

    def _check_kind(self, config: Any, engine: Engine) -> None:
        if config.get_text_config() is not config:
            raise HarnessError(
                f"--model {self.name}: its rope parameters lie in a part of its config, which "
                "engines name in different ways; put the patch on the text model alone"
            )
        kind = (getattr(config, "rope_parameters", None) or {}).get("rope_type")
        if kind in engine.converted:
            raise HarnessError(
                f"--model {self.name}: its rope_type {kind} is written into what {self.engine} "
                "reads and stays under its flags; change config.json (--engine hf) and convert"
            )

    def _wanted(self, shipped: Rope, extent: Extent) -> Rope:
        """The patched frequencies; a query scale that is one number joins the attention factor.

        Raises:
            HarnessError: the query scale depends on the position.
        """
        plan = self.patch.resolve(shipped, extent)
        if plan.query_scale is None:
            return plan.rope
        scales = plan.query_scale(torch.arange(self.length))
        if not torch.equal(scales, scales[:1].expand_as(scales)):
            raise HarnessError(
                f"'{self.patch}' cannot be exported: it scales queries by their position, for "
                "which engines have no setting"
            )
        return plan.rope.scaled(1.0, math.sqrt(float(scales[0])))

    def _candidates(self, shipped: Rope, wanted: Rope, extent: Extent) -> list[RopeParameters]:
        """The patch's own expression first, then factors pair by pair, which express anything."""
        own = self.patch.rope_parameters
        found = [own(shipped, extent)] if own else []
        dim = shipped.rotary_dim
        if bool((wanted.inv_freq != 0).all()):
            speeds = wanted.inv_freq.double().tolist()
            factors = [shipped.theta ** (-2 * d / dim) / speed for d, speed in enumerate(speeds)]
            found.append(
                {
                    "rope_type": "longrope",
                    "short_factor": factors,
                    "long_factor": factors,
                    "attention_factor": wanted.attention_factor,
                    "original_max_position_embeddings": extent.original_max_position_embeddings,
                }
            )
        return found


def _merged(config: Any, candidate: RopeParameters) -> dict[str, Any]:
    shipped = config.rope_parameters
    return {name: shipped[name] for name in OWN if name in shipped} | candidate


def _check_windows(config: Any, extent: Extent) -> None:
    if hiding(config.get_text_config(), extent):
        raise HarnessError(
            "the model's own windows hide keys at this length; a patch lifts them, an engine's "
            "setting does not"
        )


def _apart(rope: Rope, wanted: Rope) -> float:
    """Largest relative difference of two sets of frequencies and attention factors."""
    if rope.inv_freq.shape != wanted.inv_freq.shape:
        return math.inf
    pairs: float = float(((rope.inv_freq - wanted.inv_freq).abs() / wanted.inv_freq.abs()).max())
    return max(pairs, float(abs(rope.attention_factor / wanted.attention_factor - 1)))
