import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from harness import measure
from harness.checkpoint import open_checkpoint
from harness.cli import main
from harness.engine import Engine
from harness.errors import NonFinite
from harness.journal import read_journal
from harness.plan import Request, plan
from tests.harness.conftest import command, journals, save, table

CPU = torch.device("cpu")


def request(model: Path, data: Path, **changes: object) -> Request:
    values: dict[str, object] = {
        "models": (str(model),),
        "patches": ("none",),
        "tasks": ("ppl",),
        "lengths": (128,),
        "data": str(data),
        "n": 3,
        "seed": 0,
        "dtype": "auto",
        "device": "cpu",
        "chunk": None,
    }
    return Request(**(values | changes))  # type: ignore[arg-type]


def test_a_run_gives_rows_a_table_and_a_figure(
    checkpoint: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, png, copy = tmp_path / "out", tmp_path / "a" / "f.png", tmp_path / "a" / "copy.csv"
    tasks = "ppl,ppl(protocol=by-position),continuation"
    more = ["--task", tasks, "--figure", str(png), "--csv", str(copy)]
    assert main(command(checkpoint, data, out, *more)) == 0
    rows = table(out)
    assert {row["status"] for row in rows} == {"ok"}
    assert {row["metric"] for row in rows} >= {"nll", "ppl"}
    assert {row["patch"] for row in rows} == {"none", "truncate"}
    assert {row["attention"] for row in rows} == {"sdpa"}
    assert all(float(row["peak_memory_gib"]) > 0 for row in rows)
    last = [row for row in rows if row["task"] == "ppl" and row["metric"] == "nll"]
    assert [row["n_scored_tokens"] for row in last] == ["96"] * 4  # 3 documents x 64 / 2 tokens
    assert [row["n"] for row in last] == ["3"] * 4
    assert copy.read_bytes() == (out / "results.csv").read_bytes()
    assert png.read_bytes().startswith(b"\x89PNG")
    printed = capsys.readouterr().out
    assert "nll: difference to none" in printed
    assert "nll: difference to truncate" in printed


def test_a_prompt_may_lose_its_middle_and_a_text_that_is_scored_not(
    checkpoint: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = command(checkpoint, data, tmp_path, "--len", "500", "--patch")
    both = [*arguments, "truncate(cut=beginning),truncate(cut=middle)"]
    assert main([*both, "--task", "needle(depth=0)", "--n", "1"]) == 0
    beginning, middle = read_journal(tmp_path)
    assert beginning.samples[0]["tail"] == middle.samples[0]["tail"]
    assert beginning.samples[0]["text"] != middle.samples[0]["text"]
    assert main([*both, "--task", "ppl"]) == 2
    assert "leave cut=middle out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("task", "cut"),
    [("needle(depth=0)", "middle"), ("ppl", "beginning"), ("continuation(new=8)", "beginning")],
)
@pytest.mark.parametrize("where", [[], ["--in-process"]])
def test_truncate_cuts_the_middle_of_prompts_and_the_beginning_of_texts(
    checkpoint: Path, data: Path, tmp_path: Path, task: str, cut: str, where: list[str]
) -> None:
    arguments = command(checkpoint, data, tmp_path, "--len", "500", "--task", task, "--n", "1")
    assert main([*arguments, *where, "--patch", f"truncate,truncate(cut={cut})"]) == 0
    records = read_journal(tmp_path)
    assert [one.rows[0].patch for one in records] == ["truncate", f"truncate(cut={cut})"]
    assert records[0].samples == records[1].samples
    before = "truncate"  # under which cells were stored whose prompts had lost their beginning
    assert (records[0].key["patch"] == before) == (cut == "beginning")
    assert len({one.rows[0].cell for one in records}) == 2


def test_truncate_at_the_trained_length_changes_nothing(
    checkpoint: Path, data: Path, tmp_path: Path
) -> None:
    assert main(command(checkpoint, data, tmp_path)) == 0
    values = {
        (row["patch"], row["context_length"]): row["value"]
        for row in table(tmp_path)
        if row["metric"] == "nll"
    }
    assert values["none", "64"] == values["truncate", "64"] == values["truncate", "128"]
    assert values["none", "128"] != values["truncate", "128"]


def test_the_same_command_again_runs_nothing(
    checkpoint: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = command(checkpoint, data, tmp_path)
    assert main(arguments) == 0
    before = [path.read_bytes() for path in (*journals(tmp_path), tmp_path / "results.csv")]
    first = capsys.readouterr().out
    assert main(arguments) == 0
    after = [path.read_bytes() for path in (*journals(tmp_path), tmp_path / "results.csv")]
    assert after == before
    captured = capsys.readouterr()
    assert "4 of 4 cells are in" in captured.err
    assert captured.out == first


def test_one_more_patch_runs_the_missing_cells_only(
    checkpoint: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(checkpoint, data, tmp_path)) == 0
    assert main(command(checkpoint, data, tmp_path, "--patch", "none,truncate,ntk")) == 0
    assert "4 of 6 cells are in" in capsys.readouterr().err
    assert len(read_journal(tmp_path)) == 6


def test_a_report_from_the_journal_equals_the_run(
    checkpoint: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(checkpoint, data, tmp_path)) == 0
    printed, stored = capsys.readouterr().out, (tmp_path / "results.csv").read_bytes()
    (tmp_path / "results.csv").unlink()
    assert main(["report", str(tmp_path)]) == 0
    assert capsys.readouterr().out == printed
    assert (tmp_path / "results.csv").read_bytes() == stored
    assert (tmp_path / "figure.png").exists()


def test_corrupt_results_end_in_exit_code_6(
    checkpoint: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = command(checkpoint, data, tmp_path)
    assert main(arguments) == 0
    (path,) = journals(tmp_path)
    content = bytearray(path.read_bytes())
    content[40] ^= 1
    path.write_bytes(content)
    capsys.readouterr()
    assert main(arguments) == 6
    assert ".jsonl:1: the line does not match its checksum" in capsys.readouterr().err


@pytest.mark.parametrize(
    "changes",
    [
        {"patches": ("ntk",)},
        {"patches": ("ntk(factor=8)",)},
        {"tasks": ("repeat",)},
        {"lengths": (120,)},
        {"n": 2},
        {"seed": 1},
        {"dtype": "bfloat16"},
        {"chunk": 32},
    ],
)
def test_every_setting_is_in_the_key(
    checkpoint: Path, data: Path, changes: dict[str, object]
) -> None:
    plain = plan(request(checkpoint, data), CPU)
    changed = plan(request(checkpoint, data, **changes), CPU)
    assert not {cell.template.cell for cell in plain} & {cell.template.cell for cell in changed}


def test_weights_config_tokenizer_and_data_are_in_the_key(tmp_path: Path, data: Path) -> None:
    model = tmp_path / "model"
    seen = set()

    def note() -> None:
        seen.add(plan(request(model, data), CPU)[0].template.cell)

    save(model, seed=0)
    note()
    note()
    assert len(seen) == 1
    save(model, seed=1)
    note()
    config = json.loads((model / "config.json").read_text())
    config["rope_parameters"]["rope_theta"] = 5e5
    (model / "config.json").write_text(json.dumps(config))
    note()
    rules = json.loads((model / "tokenizer.json").read_text())
    vocabulary = rules["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    (model / "tokenizer.json").write_text(json.dumps(rules))
    note()
    (data / "0.txt").write_text((data / "0.txt").read_text().replace("alpha", "alphb"))
    note()
    assert len(seen) == 5


def cell_of(model: Path, task: str) -> str:
    wanted = request(model, Path(), tasks=(task,), lengths=(2048,))
    return plan(replace(wanted, data=None), CPU)[0].template.cell


def test_a_chat_template_is_in_the_key_of_prompts_that_stand_in_it(own_checkpoint: Path) -> None:
    path = own_checkpoint / "tokenizer_config.json"
    fixed, seen = json.loads(path.read_text()), []
    for before in ("user:", "user:", "User:"):
        template = before + "{{ messages[0]['content'] }}"
        path.write_text(json.dumps(fixed | {"chat_template": template}))
        tasks = (f"ruler(tasks=vt,chat={chat})" for chat in ("on", "off"))
        seen.append([cell_of(own_checkpoint, task) for task in tasks])
    first, again, other = seen
    assert first == again
    assert first[0] != other[0] and first[1] == other[1]


def test_tokens_that_end_answers_are_in_the_key_of_tasks_with_answers(own_checkpoint: Path) -> None:
    path, seen = own_checkpoint / "generation_config.json", []
    for text in ("", '{"eos_token_id": null}', '{"eos_token_id": 7}', '{"eos_token_id": [7, 8]}'):
        path.unlink(missing_ok=True)
        if text:
            path.write_text(text)
        model = open_checkpoint(str(own_checkpoint)).load(torch.float32, CPU)
        ends = Engine(model, None, CPU).end_ids
        seen.append((ends, *(cell_of(own_checkpoint, one) for one in ("passkey", "ppl"))))
    assert len({ends for ends, *_ in seen}) == len({answers for _, answers, _ in seen}) == 3
    assert seen[0] == seen[1]
    assert len({loss for *_, loss in seen}) == 1


def test_nan_weights_give_a_row_and_exit_code_3(
    own_checkpoint: Path, data: Path, tmp_path: Path
) -> None:
    path = own_checkpoint / "model.safetensors"
    tensors = load_file(path)
    tensors["model.norm.weight"][3] = float("nan")
    save_file(tensors, path, metadata={"format": "pt"})
    out = tmp_path / "out"
    assert main(command(own_checkpoint, data, out, "--patch", "none,dca")) == 3
    rows = table(out)
    assert [row["status"] for row in rows] == ["nan"] * 4
    assert [row["value"] for row in rows] == [""] * 4
    assert "at position" in rows[0]["error"]


@pytest.mark.parametrize(
    ("retry", "measured"), [((), 0), (("--retry", "nan"), 2), (("--retry", "failed"), 4)]
)
def test_failed_cells_are_measured_again_on_request_only(
    retry: tuple[str, ...],
    measured: int,
    checkpoint: Path,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(self: object, tokens: list[int], *_: object) -> object:
        raise NonFinite("nan") if len(tokens) == 64 else MemoryError

    with monkeypatch.context() as patched:
        patched.setattr(measure.Engine, "score", fail)
        assert main(command(checkpoint, data, tmp_path)) == 3
    assert {row["status"] for row in table(tmp_path)} == {"nan", "oom"}
    assert main(command(checkpoint, data, tmp_path, *retry)) == (0 if measured == 4 else 3)
    assert [one.status for one in read_journal(tmp_path)].count("ok") == measured


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--retry", "oomm"], "--retry oomm: unknown status 'oomm'; expected failed, or some of"),
        (["--retry", "ok"], "--retry ok"),
        (["--shard", "0/2"], "--shard 0/2: expected i/N"),
        (["--shard", "3/2"], "--shard 3/2"),
        (["--shard", "1"], "--shard 1"),
        (["--cell-timeout", "0"], "--cell-timeout 0: expected seconds above 0"),
        (["--cell-timeout", "nan"], "--cell-timeout nan"),
        (["--cell-timeout", "9"], "--in-process"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(
    more: list[str],
    words: str,
    checkpoint: Path,
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(command(checkpoint, data, tmp_path, *more)) == 2
    assert words in capsys.readouterr().err


def test_shards_are_parts_that_make_the_whole(
    checkpoint: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for shard, count in (("1/3", 2), ("3/3", 3), ("2/3", 4)):
        assert main(command(checkpoint, data, tmp_path, "--shard", shard)) == 0
        assert f"shard {shard}" in capsys.readouterr().err
        assert len(read_journal(tmp_path)) == count
    assert len(journals(tmp_path)) == 3
    assert main(command(checkpoint, data, tmp_path)) == 0
    assert "0 to run" in capsys.readouterr().err


@pytest.mark.parametrize(
    "problem",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: tried 9 bytes"),
        MemoryError(),
    ],
)
def test_a_cell_out_of_memory_does_not_stop_the_others(
    problem: BaseException,
    checkpoint: Path,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    score = measure.Engine.score

    def fail(self: object, tokens: object, score_from: int, keep: int | None = None) -> object:
        if keep is None and len(tokens) == 128:  # type: ignore[arg-type]
            raise problem
        return score(self, tokens, score_from, keep)  # type: ignore[arg-type]

    monkeypatch.setattr(measure.Engine, "score", fail)
    assert main(command(checkpoint, data, tmp_path)) == 3
    found = {(row["patch"], row["context_length"]): row["status"] for row in table(tmp_path)}
    assert found["none", "128"] == "oom"
    assert sorted(found.values()) == ["ok", "ok", "ok", "oom"]


def test_another_exception_of_torch_is_not_taken_for_oom(
    checkpoint: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object) -> None:
        raise RuntimeError("shapes differ")

    monkeypatch.setattr(measure.Engine, "score", fail)
    with pytest.raises(RuntimeError, match="shapes differ"):
        main(command(checkpoint, data, tmp_path))


def test_ctrl_c_ends_with_130_and_an_intact_journal(
    checkpoint: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    score, calls = measure.Engine.score, []

    def interrupted(self: object, *args: object) -> object:
        calls.append(args)
        if len(calls) == 5:  # in the middle of the second cell
            raise KeyboardInterrupt
        return score(self, *args)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(measure.Engine, "score", interrupted)
        assert main(command(checkpoint, data, tmp_path)) == 130
    assert len(read_journal(tmp_path)) == 1
    assert main(command(checkpoint, data, tmp_path)) == 0
    assert len(read_journal(tmp_path)) == 4


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_that_is_ignored_stays_so(
    sent: signal.Signals,
    checkpoint: Path,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    score = measure.Engine.score
    monkeypatch.setattr(
        measure.Engine, "score", lambda *some: (os.kill(os.getpid(), sent), score(*some))[1]
    )
    before = signal.signal(sent, signal.SIG_IGN)  # as behind nohup
    try:
        assert main(command(checkpoint, data, tmp_path)) == 0
    finally:
        signal.signal(sent, before)
    assert "finishing" not in capfd.readouterr().err


def test_kill_9_in_a_run_resumes_to_the_same_numbers(
    checkpoint: Path, data: Path, tmp_path: Path
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    many = ["--len", "64,96,128,160"]
    assert main(command(checkpoint, data, whole, *many)) == 0
    process = subprocess.Popen(
        [sys.executable, "-m", "harness", *command(checkpoint, data, killed, *many)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while process.poll() is None and not any(b'"rows"' in p.read_bytes() for p in journals(killed)):
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert main(command(checkpoint, data, killed, *many)) == 0

    def numbers(out: Path) -> list[tuple[str, str]]:
        return [(row["cell"], row["value"]) for row in table(out)]

    assert numbers(killed) == numbers(whole)


def test_a_real_allocation_failure_is_oom() -> None:
    code = (
        "import resource, torch\n"
        "from harness.memory import is_out_of_memory\n"
        "resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))\n"
        "try:\n    torch.empty(1 << 40)\n"
        "except RuntimeError as error:\n    assert is_out_of_memory(error), error\n"
        "else:\n    raise SystemExit('allocated')\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
