"""``weitiao serve`` from end to end: a process of its own, asked over HTTP."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import httpx
import pytest
from safetensors.torch import load_file, save_file

from cli.conftest import one_sentence
from weitiao import api
from weitiao.api import feedback
from weitiao.api.begin import source_of
from weitiao.api.exporting import _material
from weitiao.api.serving import _offer, _served, fingerprint
from weitiao.errors import ModelError, RunError
from weitiao.evaluation.beside import write_measure
from weitiao.export.manner import MANNER, Manner
from weitiao.export.parity import PARITY, Form, Parity
from weitiao.export.write import Target, write_export
from weitiao.models.fingerprint import base_fingerprint
from weitiao.models.generate import Sampling
from weitiao.models.load import ModelSource
from weitiao.runs import Run
from weitiao.serving.settings import ServerSettings

QUESTION = "第3杯茶要泡几分钟？"
ENGINES = ["transformers", "openvino"]


def needs(engine: str) -> None:
    if engine == "openvino" and find_spec("openvino_genai") is None:
        pytest.skip("openvino-genai is not installed")


@contextmanager
def serving(*words: object, home: Path) -> Iterator[httpx.Client]:
    """Start the verb in ``home`` and yield a client of it, ready."""
    command = [sys.executable, "-m", "weitiao.cli", "serve", *map(str, words), "--port", "0"]
    environment = os.environ | {"WEITIAO_LANG": "en", "XDG_CACHE_HOME": str(home / "cache")}
    with (home / "log.txt").open("w") as log:
        server = subprocess.Popen(
            command, cwd=home, env=environment, stdout=subprocess.PIPE, stderr=log, encoding="utf-8"
        )
        try:
            assert server.stdout is not None
            said = []
            for line in server.stdout:
                said.append(line)
                if line.strip().startswith("http"):
                    break
            assert said[-1].strip().startswith("http"), (said, (home / "log.txt").read_text())
            with httpx.Client(base_url=said[-1].strip(), timeout=60) as client:
                until = time.monotonic() + 60
                while client.get("/ready").status_code != 200:
                    assert server.poll() is None, (home / "log.txt").read_text()
                    assert time.monotonic() < until
                    time.sleep(0.05)
                client.said = "".join(said)  # type: ignore[attr-defined]
                yield client
            server.send_signal(signal.SIGINT)
            assert server.wait(30) == 0
        finally:
            server.kill()
            server.wait()


@pytest.fixture(scope="module")
def home(finished, tmp_path_factory):
    made = tmp_path_factory.mktemp("serving")
    shutil.copytree(finished / "runs", made / "runs")
    return made


@pytest.fixture(scope="module")
def trained(home):
    """What the run answers in this process, by the same template."""
    talk = api.chat(api.open_run(str(home / "runs" / "tea")), Sampling(8))
    return "".join(talk.reply(QUESTION)), "".join(talk.base_reply())


def answer(client: httpx.Client, **more: object) -> str:
    turns = [{"role": "user", "content": QUESTION}]
    asked = {"messages": turns, "temperature": 0, "max_tokens": 8, **more}
    reply = client.post("/v1/chat/completions", json=asked)
    assert reply.status_code == 200, reply.text
    return str(reply.json()["choices"][0]["message"]["content"])


@pytest.mark.parametrize("engine", ENGINES)
def test_a_run_and_its_base_answer_from_one_server(home, trained, engine):
    needs(engine)
    with serving("tea", "--engine", engine, home=home) as client:
        assert "Models: tea, base" in client.said
        told = client.get("/v1/models").json()["data"]
        assert [(m["id"], m["weitiao"]["role"]) for m in told] == [
            ("tea", "tuned"), ("base", "base"),
        ]  # fmt: skip
        given, base = answer(client), answer(client, model="base")
        if engine == "transformers":
            # What is served is what was trained; Q8_0 of an untrained model may differ.
            assert (given, base) == trained
        page = client.get("/")
        assert page.status_code == 200
        assert "<script" in page.text
        ids = client.post("/tokenize", json={"messages": [{"role": "user", "content": "茶"}]})
        assert ids.json()["count"] == len(ids.json()["tokens"]) > 3


def test_further_adapters_answer_by_their_names_and_keys_need_no_command_line(
    home, trained, monkeypatch
):
    monkeypatch.setenv("WEITIAO_API_KEY", "tea-house-key")
    more = f"second={home / 'runs' / 'tea' / 'adapter'}"
    with serving("tea", "--adapter", more, "--engine", "transformers", home=home) as client:
        assert client.get("/v1/models").status_code == 401
        client.headers["authorization"] = "Bearer tea-house-key"
        names = [model["id"] for model in client.get("/v1/models").json()["data"]]
        assert names == ["tea", "second", "base"]
        assert answer(client, model="second") == answer(client) == trained[0]
        unknown = client.post("/v1/chat/completions", json={"model": "x", "messages": []})
        assert unknown.status_code in (400, 404)


def test_what_is_asked_again_is_remembered_and_what_is_said_of_it_can_be_trained_on(home):
    turns = [{"role": "user", "content": QUESTION}]
    with serving("tea", "--engine", "transformers", "log=full", home=home) as client:
        first = client.post("/v1/chat/completions", json={"messages": turns}).json()
        again = client.post("/v1/chat/completions", json={"messages": turns}).json()
        assert first["choices"] == again["choices"]
        assert 'weitiao_cache_total{result="hit"} 1.0' in client.get("/metrics").text
        said = {"request_id": first["id"], "thumb": "down", "correction": "泡五分钟。"}
        assert client.post("/v1/feedback", json=said).status_code == 200
        job = client.post("/v1/jobs", json={"kind": "batch", "requests": ["茶？", "水？"]}).json()
        until = time.monotonic() + 60
        while client.get(f"/v1/jobs/{job['id']}").json()["state"] != "done":
            assert time.monotonic() < until
            time.sleep(0.1)
        lines = client.get(f"/v1/jobs/{job['id']}/result").text.splitlines()
        assert len(lines) == 2
    rows = home / "rows.jsonl"
    done = feedback.export(str(home / "runs" / "tea"), str(rows))
    assert done.rows == 1
    assert "泡五分钟。" in rows.read_text(encoding="utf-8")
    assert api.check(api.recipe_for(rows), tokens=False).report.kept == 1


def test_a_model_without_a_run_and_a_key_made_anew(home, tiny_base):
    with serving(tiny_base, "--engine", "transformers", "--api-key", "new", home=home) as client:
        assert client.get("/v1/models").status_code == 401
        key = client.said.split("shown only now:")[1].split()[0]
        told = client.get("/v1/models", headers={"authorization": f"Bearer {key}"})
        assert [model["weitiao"]["role"] for model in told.json()["data"]] == ["model"]


def exported(run: Run, target: Target, out: Path) -> None:
    """Write an export that nobody has asked; the gate has tests of its own."""
    write_export(target, _material(run, api.recipe_of(run)), out)


@pytest.mark.parametrize(
    "engine", ["transformers", pytest.param("openvino", marks=pytest.mark.slow)]
)
def test_an_exported_folder_is_served(home, trained, engine):
    needs(engine)
    made = home / f"out-{engine}"
    for target in ("merged", "adapter"):
        exported(api.open_run(str(home / "runs" / "tea")), target, made / target)
    with serving(made / "merged", "--engine", engine, home=home) as client:
        given = answer(client)
        assert given == trained[0] or engine == "openvino"
    if engine == "transformers":
        with serving(made / "adapter", "--engine", engine, home=home) as client:
            assert answer(client) == trained[0]


def test_the_engine_that_cannot_run_it_is_told_and_replaced(weitiao, home, monkeypatch):
    import weitiao.serving.openvino as package

    def missing() -> None:
        raise ModelError("error.openvino_missing", packages="openvino-genai")

    monkeypatch.setattr(package, "require_openvino", missing)
    ready = api.serve(str(home / "runs" / "tea"), ServerSettings())
    assert ready.service.engine.name == "transformers"
    assert ready.because is not None
    assert "pip" in ready.because.sentence()
    with pytest.raises(ModelError):
        api.serve(str(home / "runs" / "tea"), ServerSettings(), engine="openvino")


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (("nothing-like-it",), "nothing-like-it"),
        (("tea", "--engine", "fast"), "--engine"),
        (("tea", "--adapter", "poems"), "--adapter"),
        (("tea", "--adapter", "poems=/nowhere"), "/nowhere"),
        (("tea", "--port", "x"), "--port"),
        (("tea", "max_waitin=3"), "max_waiting"),
        (("tea", "cache=always"), "cache"),
        (("tea", "--host", "0.0.0.0", "--engine", "transformers"), "--api-key"),
        (("tea", "--engine", "vllm"), "--vllm"),
        (("tea", "--vllm", "/nowhere"), "/nowhere"),
    ],
)  # fmt: skip
def test_what_cannot_be_served_is_one_sentence(weitiao, home, monkeypatch, words, part):
    monkeypatch.chdir(home)
    assert part in one_sentence(weitiao("serve", *words))


def test_a_port_that_is_taken_is_told_before_any_work(weitiao):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        # Not even the model has been looked for.
        assert str(port) in one_sentence(weitiao("serve", "nothing-like-it", "--port", port))


def test_a_gguf_is_not_served_by_itself(weitiao, tmp_path):
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    assert "GGUF" in one_sentence(weitiao("serve", tmp_path / "m.gguf"))


def test_each_adapter_is_served_by_its_own_weights(home, tmp_path):
    needs("openvino")
    run = api.open_run(str(home / "runs" / "tea"))
    other = tmp_path / "other"
    shutil.copytree(run.adapter, other)
    file = other / "adapter_model.safetensors"
    stat = file.stat()
    save_file({n: w * 3 for n, w in load_file(file).items()}, file, metadata={"format": "pt"})
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))

    def written(adapter: Path) -> tuple[str, bytes]:
        api.serve(str(run.path), ServerSettings(), engine="openvino", adapters={"second": adapter})
        (found,) = (run.path / "serving").glob("second-*.gguf")
        return found.name, found.read_bytes()

    first = written(run.adapter)
    assert written(run.adapter) == first
    assert written(other)[1] != first[1]
    assert written(run.adapter) == first


def test_an_export_is_served_only_if_it_is_of_these_weights_and_passed(home, tmp_path):
    needs("openvino")
    shutil.copytree(home / "runs" / "tea", tmp_path / "tea")
    run = api.open_run(str(tmp_path / "tea"))
    made = run.path / "exports" / "gguf-q8_0"
    exported(run, "gguf-q8_0", made)
    weights, costs = fingerprint(source_of(api.recipe_of(run)), run.adapter), Form(1, 1, 1.0)
    parity = Parity("gguf-q8_0", "x", 9, 0, 9, None, "chrf", (), costs, costs, weights)

    def served() -> Path:
        return _offer(str(run.path), {}).weights[0].gguf

    assert served() is None, "not asked yet"
    write_measure(made / PARITY, parity)
    assert served() == made / "model-q8_0.gguf"
    write_measure(made / PARITY, replace(parity, prompts_differ=1))
    assert served() is None
    write_measure(made / PARITY, replace(parity, weights="fp_other"))
    assert served() is None


def test_an_adapter_is_asked_as_its_export_or_its_run_says(home, tmp_path):
    run = home / "runs" / "tea"
    shutil.copytree(run / "adapter", tmp_path / "poet")
    manner = Manner("你是诗人。", temperature=0.5, quantization="nf4")
    write_measure(tmp_path / "poet" / MANNER, manner)
    offer = _offer(str(tmp_path / "poet"), {"tea": run / "adapter"})
    poet, tea, base = offer.weights
    assert poet.manner == base.manner == manner
    assert tea.manner == _offer(str(run), {}).weights[0].manner != manner
    told = list(_served(offer))
    assert [(one.system, one.defaults.temperature) for one in told] == [
        ("你是诗人。", 0.5), (None, 0), ("你是诗人。", 0.5),
    ]  # fmt: skip
    (tmp_path / "poet" / MANNER).write_text("[]")
    with pytest.raises(RunError, match=MANNER):
        _offer(str(tmp_path / "poet"), {})


def test_an_adapter_of_another_base_is_one_sentence(weitiao, home, tiny_base, tmp_path):
    other, adapter = tmp_path / "other", tmp_path / "adapter"
    shutil.copytree(tiny_base, other)
    weights = load_file(other / "model.safetensors")
    weights["model.layers.0.mlp.up_proj.weight"] *= -1
    save_file(weights, other / "model.safetensors", metadata={"format": "pt"})
    shutil.copytree(home / "runs" / "tea" / "adapter", adapter)
    config = json.loads((adapter / "adapter_config.json").read_bytes())
    config["base_model_name_or_path"] = str(other)
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    run = home / "runs" / "tea"
    said = weitiao("serve", run, "--adapter", f"second={adapter}", "--port", "0")
    assert "another model" in one_sentence(said)
    # An export knows its base, whatever has been put in its place since.
    write_measure(
        adapter / MANNER, Manner(base=base_fingerprint(ModelSource("tiny", str(tiny_base))))
    )
    assert "another model" in one_sentence(weitiao("serve", adapter, "--port", "0"))
    # Nor is a run exported from another one that PEFT has noted, if it noted none itself.
    moved = Path(shutil.copytree(run, tmp_path / "moved"))
    api.open_run(moved).base.unlink()
    shutil.rmtree(moved / "adapter")
    (adapter / MANNER).unlink()
    shutil.move(adapter, moved / "adapter")
    assert "another model" in one_sentence(weitiao("export", moved, "--to", "merged"))


@pytest.mark.parametrize("name", ["tea", "base", "a/b"])
def test_a_name_means_one_model(weitiao, home, monkeypatch, name):
    monkeypatch.chdir(home)
    said = weitiao("serve", "tea", "--adapter", f"{name}=runs/tea/adapter")
    assert name in one_sentence(said)
