"""Dense float64 reference of every method: loops over (query, key), from the papers' equations.

Slow on purpose. Nothing here imports `patches`, and methods share no more than the rotation and the
softmax, so that an error in the fast code cannot hide in both places.

A method is a name, or names joined by `+`; its parameters are one dict, or one dict a name.

    logit(i, j) = c(i) * <R(Pq(i, j)) q_i, R(Pk(i, j)) k_j> * scaling

R turns pair (d, d + rotary_dim / 2) by position * inv_freq[d] and multiplies it by the attention
factor; dimensions from rotary_dim on stay as they are. Positions count from 0.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Params = Mapping[str, Any]
Method = Params | Sequence[Params]
Frequencies = tuple[list[float], float]
Positions = tuple[float, float] | None
Vectors = list[list[float]]


@dataclass(frozen=True)
class Setting:
    """What a formula may read besides its own parameters."""

    trained: int
    context_length: int
    base: float
    rotary_dim: int
    head_dim: int

    def factor(self, params: Params) -> float:
        """The factor given, or context over trained length, never below 1."""
        given = params.get("factor")
        return max(1.0, self.context_length / self.trained) if given is None else float(given)

    def series(self, base: float | None = None) -> list[float]:
        """The geometric series base^(-2d/D)."""
        return [
            (base or self.base) ** (-2 * d / self.rotary_dim) for d in range(self.rotary_dim // 2)
        ]


def _clip(value: float, low: float, high: float) -> float:
    return min(max(value, low), high)


# frequencies: (parameters, setting) -> inv_freq


def _ntk_fixed(p: Params, s: Setting) -> list[float]:
    root = s.factor(p) ** (2 / s.rotary_dim)
    return [theta * root ** -(d + 1) for d, theta in enumerate(s.series())]


def _ntk_mixed(p: Params, s: Setting) -> list[float]:
    beta = p.get("beta", 0.625)
    rate = math.log(s.factor(p)) / (s.rotary_dim / 2) ** beta
    return [theta * math.exp(-rate * (d + 1) ** beta) for d, theta in enumerate(s.series())]


def _ntk_dynamic(p: Params, s: Setting) -> list[float]:
    spread = p.get("factor", 1)
    stretch = spread * s.context_length / s.trained - (spread - 1)
    return s.series(s.base * max(1, stretch) ** (s.rotary_dim / (s.rotary_dim - 2)))


def _by_turns(s: Setting, factor: float, slow: float, fast: float) -> list[float]:
    out = []
    for theta in s.series():
        turns = theta * s.trained / (2 * math.pi)
        kept = _clip((turns - slow) / (fast - slow), 0.0, 1.0)
        out.append((1 - kept) * theta / factor + kept * theta)
    return out


def correction_range(s: Setting) -> tuple[float, float]:
    """Pair indices (fractional) that make 32 turns and 1 turn inside the trained length."""
    pairs, circle = s.rotary_dim / (2 * math.log(s.base)), 2 * math.pi
    return pairs * math.log(s.trained / (32 * circle)), pairs * math.log(s.trained / circle)


def _by_index(s: Setting, factor: float) -> list[float]:
    low, high = correction_range(s)
    first, last = max(math.floor(low), 0), min(math.ceil(high), s.rotary_dim - 1)
    run = last - first if last != first else 0.001
    out = []
    for d, theta in enumerate(s.series()):
        squeezed = _clip((d - first) / run, 0.0, 1.0)
        out.append(squeezed * theta / factor + (1 - squeezed) * theta)
    return out


def _yarn(p: Params, s: Setting) -> list[float]:
    factor = s.factor(p)
    return {"paper": _by_turns(s, factor, 1, 32), "code": _by_index(s, factor)}[p["ramp"]]


FREQUENCIES: dict[str, Callable[[Params, Setting], list[float]]] = {
    "none": lambda p, s: s.series(),
    "pi": lambda p, s: [theta / s.factor(p) for theta in s.series()],
    "ntk-old": lambda p, s: s.series(s.base * s.factor(p)),
    "ntk": lambda p, s: s.series(s.base * s.factor(p) ** (s.rotary_dim / (s.rotary_dim - 2))),
    "ntk-fixed": _ntk_fixed,
    "ntk-mixed": _ntk_mixed,
    "ntk-dynamic": _ntk_dynamic,
    "ntk-by-parts": lambda p, s: _by_turns(s, s.factor(p), p.get("alpha", 1), p.get("beta", 32)),
    "yarn": _yarn,
    "llama3": lambda p, s: _by_turns(s, s.factor(p), 1, 4),
    "rope-base": lambda p, s: s.series(float(p["theta"])),
}


# logit scales: (parameters, query index, setting) -> factor on the logits of that query


def _infoscale(p: Params, i: int, s: Setting) -> float:
    now, then = (math.sqrt(1 - keys ** (-2 / s.head_dim)) for keys in (i + 1, s.trained))
    return max(1.0, now / then)


SCALES: dict[str, Callable[[Params, int, Setting], float]] = {
    "logn": lambda p, i, s: max(1.0, math.log(i + 1) / math.log(s.trained)),
    "infoscale": _infoscale,
    "temperature": lambda p, i, s: float(p["value"]),
    "yarn-scale": lambda p, i, s: float((0.1 * math.log(s.factor(p)) + 1) ** 2),
    "longrope-scale": lambda p, i, s: 1 + math.log(s.factor(p)) / math.log(s.trained),
}


# position maps: (parameters, i, j) -> positions of query and key, or None where the key is hidden


def _leaky_rerope(p: Params, i: int, j: int) -> Positions:
    window, k = p["window"], p["k"]
    return (i, j) if i - j < window else (window + (i - window) / k, j / k)


def _self_extend(p: Params, i: int, j: int) -> Positions:
    window, group = p["neighbor_window"], p["group_size"]
    return (i, j) if i - j < window else (i // group + window - window // group, j // group)


def _dca(p: Params, i: int, j: int) -> Positions:
    chunk = p["chunk_size"]
    last, lag = chunk + p["local_window"] - 1, i // chunk - j // chunk
    if lag == 0:
        return i % chunk, j % chunk
    return (min(i % chunk + chunk, last), j % chunk) if lag == 1 else (last, j % chunk)


def _lm_infinite(p: Params, i: int, j: int) -> Positions:
    if i - j < p["window"]:
        return i, j
    return (p["window"], 0) if j < p["sinks"] else None


def _streaming(p: Params, i: int, j: int) -> Positions:
    if i - j < p["window"]:
        return i, j
    return (min(i, p["sinks"] + p["window"] - 1), j) if j < p["sinks"] else None


MAPS: dict[str, Callable[[Params, int, int], Positions]] = {
    "rerope": lambda p, i, j: (i, j) if i - j < p["window"] else (p["window"], 0),
    "leaky-rerope": _leaky_rerope,
    "self-extend": _self_extend,
    "dca": _dca,
    "string": lambda p, i, j: (i if i - j < p["shift"] else i - p["shift"] + p["window"], j),
    "lm-infinite": _lm_infinite,
    "streaming": _streaming,
}


def parts(method: str, params: Method) -> list[tuple[str, Params]]:
    """The single methods of a `+` chain with their parameters."""
    names = method.split("+")
    known = {*FREQUENCIES, *SCALES, *MAPS, "window", "sinks"}
    assert known.issuperset(names), names
    return list(zip(names, [params] if isinstance(params, Mapping) else params, strict=True))


def _is_hidden(chain: list[tuple[str, Params]], i: int, j: int, layer: int) -> bool:
    if any(name == "sinks" and j < given["size"] for name, given in chain):
        return False
    for name, given in chain:
        if name == "window":
            start, stop = given.get("layers", ":").split(":")
            patched = int(start or 0) <= layer and (stop == "" or layer < int(stop))
            if patched and i - j >= given["size"]:
                return True
    return False


def _positions(chain: list[tuple[str, Params]], i: int, j: int, layer: int) -> Positions:
    if j > i or _is_hidden(chain, i, j, layer):
        return None
    for name, given in chain:
        if name in MAPS:
            return MAPS[name](given, i, j)
    return i, j


def oracle_relative_position(
    method: str, params: Method, i: int, j: int, layer: int = 0
) -> float | None:
    """Position difference used for the pair (i, j), or None where key j is hidden from query i."""
    used = _positions(parts(method, params), i, j, layer)
    return None if used is None else used[0] - used[1]


def oracle_inv_freq(
    method: str, params: Method, L_train: int, context_length: int, base: float, rotary_dim: int
) -> Frequencies:
    """Frequencies [rotary_dim/2] and attention factor of the method, plain where it sets none."""
    setting = Setting(L_train, context_length, base, rotary_dim, rotary_dim)
    for name, given in parts(method, params):
        if name == "yarn":
            default = 0.1 * math.log(setting.factor(given)) + 1
            return FREQUENCIES[name](given, setting), given.get("attention_factor", default)
        if name in FREQUENCIES:
            return FREQUENCIES[name](given, setting), 1.0
    return setting.series(), 1.0


def rotate(vector: list[float], position: float, frequencies: Frequencies) -> list[float]:
    """The vector with its first rotary dimensions turned to the position."""
    inv_freq, attention_factor = frequencies
    half, out = len(inv_freq), list(vector)
    for d, rate in enumerate(inv_freq):
        cos, sin = math.cos(position * rate), math.sin(position * rate)
        out[d] = attention_factor * (vector[d] * cos - vector[d + half] * sin)
        out[d + half] = attention_factor * (vector[d + half] * cos + vector[d] * sin)
    return out


def softmax_mean(logits: list[float], values: Vectors) -> tuple[list[float], float]:
    """Softmax-weighted mean of the values, and the log-sum-exp of the logits."""
    top = max(logits)
    weights = [math.exp(logit - top) for logit in logits]
    total = sum(weights)
    columns = zip(*values, strict=True)
    mean = [sum(w * x for w, x in zip(weights, column, strict=True)) / total for column in columns]
    return mean, top + math.log(total)


def oracle_attention_lse(
    method: str,
    params: Method,
    q: Any,
    k: Any,
    v: Any,
    L_train: int,
    context_length: int,
    base: float,
    rotary_dim: int,
    scaling: float,
    layer: int = 0,
) -> tuple[list[Vectors], Vectors]:
    """Output [heads, L, d] and log-sum-exp [heads, L] of causal attention under the method.

    q is [heads, L, d] and k, v are [kv_heads, L, d], not rotated: tensors or nested lists. Query
    heads share key heads in runs of heads / kv_heads.
    """
    heads, keys, values = ([[list(map(float, x)) for x in head] for head in t] for t in (q, k, v))
    chain = parts(method, params)
    setting = Setting(L_train, context_length, base, rotary_dim, len(heads[0][0]))
    frequencies = oracle_inv_freq(method, params, L_train, context_length, base, rotary_dim)
    turn_key = functools.cache(lambda h, j, position: rotate(keys[h][j], position, frequencies))
    out: list[Vectors] = [[] for _ in heads]
    lse: Vectors = [[] for _ in heads]
    for head, i in itertools.product(range(len(heads)), range(len(heads[0]))):
        shared = head // (len(heads) // len(keys))
        turn_query = functools.cache(lambda p, v=heads[head][i]: rotate(v, p, frequencies))
        scale = math.prod(SCALES[name](p, i, setting) for name, p in chain if name in SCALES)
        logits, seen = [], []
        for j in range(i + 1):
            used = _positions(chain, i, j, layer)
            if used is not None:
                turned = zip(turn_query(used[0]), turn_key(shared, j, used[1]), strict=True)
                logits.append(scaling * scale * sum(a * b for a, b in turned))
                seen.append(values[shared][j])
        mean, total = softmax_mean(logits, seen)
        out[head].append(mean)
        lse[head].append(total)
    return out, lse


def oracle_attention(*args: Any, **kwargs: Any) -> list[Vectors]:
    """Output [heads, L, d] alone; arguments as `oracle_attention_lse`."""
    return oracle_attention_lse(*args, **kwargs)[0]
