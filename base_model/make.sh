#!/bin/sh
# From text to the embedded base model's weights: about an hour on 2 cores, minutes on a GPU.
# A run that was broken off goes on where it was when this is called again.
set -eu
cd "$(dirname "$0")"
python make_tokenizer.py
python make_corpus.py
python make_config.py
weitiao train build/copying.jsonl --recipe recipe_copying.yaml --model build/init \
    --out build/run-copying --resume
weitiao train build/train.jsonl --recipe recipe.yaml --model build/run-copying/model \
    --out build/run --resume
cp build/run/model/config.json build/run/model/model.safetensors ../src/weitiao/models/embedded/
python measure.py ../src/weitiao/models/embedded build
