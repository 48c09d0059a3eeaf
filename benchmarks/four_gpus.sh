#!/usr/bin/env bash
# The 2023 challenge's shapes on the GPUs of one host, in one go (some nine minutes on four H100):
#
#   benchmarks/four_gpus.sh DATA TOKENIZER OPT_TOKENIZER [WORK]
#
# DATA has hellaswag/ and mmlu/, TOKENIZER is a folder with Phi-3's (32,064 tokens), OPT_TOKENIZER one with a byte-level
# tokenizer of at most 50,272. WORK (default /dev/shm/orin-four) gets three random models of 28, 65 and 61 GB, one
# after another, and the runs; /dev/shm keeps them in memory. PYTHON names the interpreter with orin-run in it.
set -euo pipefail
data=$1 tokenizer=$2 opt_tokenizer=$3 work=${4:-/dev/shm/orin-four}
python=${PYTHON:-python3}
cd "$(dirname "$0")/.."
mkdir -p "$work"

with_model() { # SHAPE TOKENIZER: then each line of standard input is the tasks and the ways of a comparison
  local gguf=$work/$1.gguf
  "$python" -m benchmarks.random_gguf header "$2" "$gguf" --shape "$1"
  "$python" -m benchmarks.random_gguf fill "$gguf"
  while read -r tasks ways more; do
    "$python" -m benchmarks.bench_several_gpus --gguf "$gguf" --data "$data" --work "$work/runs" \
      --tasks "$tasks" --ways "$ways" ${more:+"--more=$more"} < /dev/null
  done
  rm -f "$gguf"
}

with_model llama-30b "$tokenizer" <<'RUNS'
hellaswag: replicas --protocol=2023
hellaswag: split --protocol=2023
hellaswag: pairs --protocol=2023
hellaswag:2000 one,two --protocol=2023
RUNS
with_model opt-30b "$opt_tokenizer" <<'RUNS'
hellaswag: replicas --protocol=2023
hellaswag:2000 split,pairs --protocol=2023
RUNS
with_model phi3-medium "$tokenizer" <<'RUNS'
mmlu: one,two,replicas
RUNS
