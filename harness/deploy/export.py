"""The command `export`: a patch as the setting of an inference engine, where it has one.

Its arguments and what they alone forbid; imports torch only where a patch is read.
"""

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import patches
from harness.deploy.engines import ENGINES
from harness.errors import HarnessError
from harness.lengths import parse_length, render_length
from harness.options import Parser
from patches.spec import did_you_mean, split_specs

__all__ = ["Exports", "main"]


def main(argv: Sequence[str]) -> int:
    """Print the setting of an engine that does what a patch does.

    Raises:
        HarnessError: a mistake in the arguments, or a patch that the engine cannot express.
        PatchError: a patch that cannot be read or put on the model.
        Unavailable: the model is not there.
    """
    parser = Parser(
        prog="python -m harness export",
        description="The setting of an inference engine that equals a patch, checked on logits.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--patch", required=True, help="one spec, such as yarn(ramp=code)")
    add("--model", default="tiny", help="name, path or hub id (default: tiny)")
    add("--len", required=True, help="tokens that the engine must take, such as 32k")
    add("--engine", default="hf", help=f"{', '.join(ENGINES)} (default: hf)")
    add("--trained-length", help="tokens the model was trained at (default: its config's)")
    options = parser.parse_args(argv)
    if options.engine not in ENGINES:
        raise HarnessError(
            f"--engine {options.engine}: expected one of {', '.join(ENGINES)}"
            f"{did_you_mean(options.engine, ENGINES)}"
        )
    given = options.trained_length
    trained = parse_length(given, "--trained-length") if given else None
    length = parse_length(options.len)
    specs = split_specs(options.patch)
    if len(specs) != 1:
        raise HarnessError(f"--patch {options.patch}: one setting is one patch; give one")
    patch = patches.parse(specs[0])
    reason = _inexpressible(patch)
    if reason:
        raise HarnessError(f"'{patch}' cannot be exported: it {reason}")
    from harness.deploy.express import Expression

    text, checked = Expression(options.model, patch, length, trained, options.engine).export()
    print(checked, file=sys.stderr)
    print(text)
    return 0


def _inexpressible(patch: Any) -> str:
    """Why no engine has a setting for a patch, as far as the patch alone tells."""
    if not patch.parts:
        return "changes nothing; start the engine as it is"
    if patch.keep:
        return "cuts the input; give the engine the newest tokens alone"
    if patch.bands or patch.visible or patch.sinks or patch.native_window:
        return "changes attention, for which engines have kernels and no setting"
    return ""


@dataclass(frozen=True)
class Exports:
    """Settings of one engine for a model at a length, each looked for once.

    Attributes:
        trained: tokens the model was trained at; None for what its config says.
    """

    model: str
    length: int
    trained: int | None
    engine: str
    _found: dict[str, tuple[str, str]] = field(default_factory=dict)

    def refused(self, spec: str) -> str:
        """Why the engine has no setting for a patch; empty if it has one."""
        return self._look(spec)[1]

    def setting(self, spec: str) -> str:
        """The setting; empty where the engine has to be told nothing, or has none."""
        return self._look(spec)[0]

    def command(self, spec: str) -> str:
        """The command line that prints and checks the setting."""
        options = {"--model": self.model, "--patch": spec, "--len": render_length(self.length)}
        if self.trained:
            options["--trained-length"] = render_length(self.trained)
        words = (f"{name} {shlex.quote(text)}" for name, text in options.items())
        return f"python -m harness export {' '.join(words)} --engine {self.engine}"

    def _look(self, spec: str) -> tuple[str, str]:
        if spec not in self._found:
            self._found[spec] = self._find(patches.parse(spec))
        return self._found[spec]

    def _find(self, patch: Any) -> tuple[str, str]:
        if not patch.parts:
            return "", ""
        reason = _inexpressible(patch)
        if reason:
            return "", reason
        from harness.deploy.express import Expression

        try:
            expression = Expression(self.model, patch, self.length, self.trained, self.engine)
            return expression.export()[0], ""
        except (HarnessError, patches.PatchError) as error:
            return "", str(error)
