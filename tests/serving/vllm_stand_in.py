"""Stands in for vLLM, which needs a GPU: its command line, its routes, and how it fails.

It is put into an environment of its own as ``vllm/entrypoints/cli/main.py`` and started by
``python -m`` as the real one is. It takes the flags and request fields that vLLM documents, and
nothing else. A worker stands beside it, as vLLM's engine does, which only a signal ends. Answers
say the prompt again, and again; an adapter adds its rank to each token. What it was told is kept
in ``told.jsonl`` beside the log of its environment (``$STAND_IN``).
"""

import argparse
import json
import os
import signal
import socketserver
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler

DIES, REFUSES_LATE, CUTS, TEXT_ONLY, WAITS, EOS = 666, 667, 668, 669, 670, 2
"""Tokens: the server is killed, tells an error, ends the stream, tells no ids, tells nothing more
until nobody listens; the model's end."""
PAUSE = 0.01


def tell(**what):
    with open(os.environ["STAND_IN"], "a", encoding="utf-8") as told:
        told.write(json.dumps(what) + "\n")


def arguments():
    parser = argparse.ArgumentParser(prog="vllm serve", allow_abbrev=False)
    parser.add_argument("serve", choices=["serve"])
    parser.add_argument("model")
    parser.add_argument("--served-model-name", required=True)
    parser.add_argument("--max-model-len", type=int, required=True)
    parser.add_argument("--dtype", choices=["auto", "bfloat16", "float16", "float32"])
    parser.add_argument("--gpu-memory-utilization", type=float)
    parser.add_argument("--load-format", choices=["auto", "safetensors"])
    parser.add_argument("--generation-config", choices=["auto", "vllm"], default="auto")
    parser.add_argument("--disable-uvicorn-access-log", action="store_true")
    parser.add_argument("--enable-lora", action="store_true")
    parser.add_argument("--max-loras", type=int, default=1)
    parser.add_argument("--max-lora-rank", type=int, choices=[1, 8, 16, 32, 64], default=16)
    parser.add_argument("--lora-modules", type=json.loads, nargs="+", default=[])
    parser.add_argument("--uds", required=True)
    return parser.parse_args()


NUMBER, COUNT = (int, float), int
FIELDS = {
    "model": str,
    "prompt": list,
    "stream": bool,
    "max_tokens": COUNT,
    "temperature": NUMBER,
    "top_p": NUMBER,
    "repetition_penalty": NUMBER,
    "seed": (COUNT, type(None)),
    "logprobs": (COUNT, type(None)),
    "stop_token_ids": list,
    "ignore_eos": bool,
    "skip_special_tokens": bool,
    "return_token_ids": bool,
    "return_tokens_as_token_ids": bool,
}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.plain(200 if self.path == "/health" else 404, b"")

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        tell(asked=asked)
        wrong = [name for name, value in asked.items() if not isinstance(value, FIELDS[name])]
        length = len(asked["prompt"]) + asked["max_tokens"]
        if self.path != "/v1/completions" or asked["model"] not in self.server.models:
            self.refuse(404, f"The model `{asked['model']}` does not exist.")
        elif wrong or not asked["stream"] or length > self.server.context:
            self.refuse(400, f"This model's maximum context length is {self.server.context}.")
        else:
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream; charset=utf-8")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            try:
                self.answer(asked)
                self.chunk("[DONE]")
                self.wfile.write(b"0\r\n\r\n")
            except OSError:
                tell(aborted=asked["prompt"])
                self.close_connection = True

    def answer(self, asked):
        prompt, count = asked["prompt"], asked["max_tokens"]
        more = self.server.models[asked["model"]]
        for place in range(count):
            time.sleep(PAUSE)
            told = prompt[place % len(prompt)]
            if told == DIES:
                os.kill(os.getpid(), signal.SIGKILL)
            if told == REFUSES_LATE:
                self.chunk({"error": {"message": "the engine has died", "code": 500}})
                return
            if told == CUTS:
                return
            if told == WAITS:
                self.rfile.read(1)
                raise ConnectionError("who asked has left")
            token = told + more
            ended = token in asked["stop_token_ids"] or (token == EOS and not asked["ignore_eos"])
            choice = {
                "index": 0,
                "text": "",
                "logprobs": logprobs(token, asked["logprobs"]),
                "finish_reason": "stop" if ended else "length" if place + 1 == count else None,
                "token_ids": [token],
            }
            if told == TEXT_ONLY:
                del choice["token_ids"]
            if place == 0:
                choice["prompt_token_ids"] = prompt
            self.chunk({"id": "cmpl-1", "object": "text_completion", "choices": [choice]})
            if ended:
                return

    def chunk(self, value):
        data = value if isinstance(value, str) else json.dumps(value)
        line = f"data: {data}\n\n".encode()
        self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))

    def refuse(self, status, message):
        self.plain(status, json.dumps({"error": {"message": message, "code": status}}).encode())

    def plain(self, status, body):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def logprobs(token, count):
    """The token itself first, whatever its rank, and then the likeliest, as vLLM tells them."""
    if count is None:
        return None
    likely = {token + 1: -0.25, token: -0.5, token + 2: -4.0}
    top = {token: likely[token], **dict(list(likely.items())[:count])}
    return {
        "text_offset": [0],
        "tokens": [f"token_id:{token}"],
        "token_logprobs": [-0.5],
        "top_logprobs": [{f"token_id:{one}": value for one, value in top.items()}],
    }


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    request_queue_size = 128


def main():
    given = arguments()
    # As vLLM's engine: it goes on when its server is killed.
    worker = subprocess.Popen(["sleep", "600"])
    tell(
        arguments=sys.argv[1:],
        pid=os.getpid(),
        worker=worker.pid,
        environment=dict(os.environ),
        path=sys.path,
    )
    if os.path.exists(os.path.join(given.model, "broken")):
        print("(EngineCore pid=7) ERROR 11-22 22:00:00 [core.py:7] Traceback (most recent ca")
        print("(EngineCore pid=7) ERROR 11-22 22:00:00 [core.py:7] ValueError: Free memory on")
        print("RuntimeError: Engine core initialization failed. See root cause above.")
        sys.exit(1)
    ranks = {}
    for module in given.lora_modules:
        with open(os.path.join(module["path"], "adapter_config.json"), encoding="utf-8") as file:
            ranks[module["name"]] = json.load(file)["r"]
    server = Server(given.uds, Handler)
    server.models = {given.served_model_name: 0, **ranks}
    server.context = given.max_model_len
    while os.path.exists(os.path.join(given.model, "silent")):
        time.sleep(PAUSE)
    print("Application startup complete.", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
