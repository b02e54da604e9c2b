#!/bin/bash
# Checks and measures on a machine with a GPU that has no Debian packages and lends itself for minutes.
#
# usage: gpu_check.sh STAGE... [--bin FOLDER] [--model FILE] [--text FILE] [--shapes FOLDER] [--out FOLDER]
#   STAGE  smoke     the GPU and what the program says of it
#          parity    every kernel against scalar code
#          sanitize  the same tests under compute-sanitizer, the small ones
#          kernels   time and share of the read limit, kernel by kernel
#          quality   perplexity on the GPU and on the CPU; needs --model and --text
#          models    decode and prefill of random-weight models
# FOLDER of --bin holds tandem, kernels_cuda_{linear,ops,attention}_test and bench_cuda_kernels, as the
# preset `cuda` builds them. Every stage leaves a file of its name in --out; the last line says what failed.
set -u
bin=. model= text= shapes=data/models out=gpu-check stages=()
while [ $# -gt 0 ]; do
  case $1 in
    --bin) bin=$2; shift ;;
    --model) model=$2; shift ;;
    --text) text=$2; shift ;;
    --shapes) shapes=$2; shift ;;
    --out) out=$2; shift ;;
    smoke|parity|sanitize|kernels|quality|models) stages+=("$1") ;;
    *) echo "gpu_check.sh: '$1' is no stage and no option" >&2; exit 2 ;;
  esac
  shift
done
[ ${#stages[@]} -gt 0 ] || { sed -n '2,14p' "$0" >&2; exit 2; }
mkdir -p "$out"

smoke() {
  nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.sm,clocks.mem,power.limit --format=csv,noheader
  "$bin/tandem" info --version 2>/dev/null || "$bin/tandem" --version
}
parity() {
  "$bin/kernels_cuda_ops_test" --gtest_brief=1 && "$bin/kernels_cuda_attention_test" --gtest_brief=1 &&
    "$bin/kernels_cuda_linear_test" --gtest_brief=1
}
sanitize() {
  compute-sanitizer --error-exitcode 9 "$bin/kernels_cuda_ops_test" --gtest_filter='*Argmax*' --gtest_brief=1 &&
    compute-sanitizer --error-exitcode 9 "$bin/kernels_cuda_attention_test" --gtest_filter='*Window*' --gtest_brief=1 &&
    compute-sanitizer --error-exitcode 9 "$bin/kernels_cuda_linear_test" --gtest_filter='*Neighbours*' --gtest_brief=1
}
kernels() { "$bin/bench_cuda_kernels"; }
quality() {
  for where in cuda cpu; do
    device=(--device cuda)
    [ $where = cpu ] && device=()
    "$bin/tandem" eval "$model" --text "$text" --ppl B --windows 40 "${device[@]}" || return 1
  done
}
models() {
  for shape in Llama-3.2-1B Llama-3.1-8B; do
    for encoding in "bf16" "int8" "int4-g128 --lm-head q8_0" "q8_0 --lm-head q8_0" "q4_0 --lm-head q8_0"; do
      for test in "-p 0 -n 128 -d 128 --npl 1,8,32" "-p 2048 -n 0"; do
        # shellcheck disable=SC2086
        "$bin/tandem" bench --device cuda --random-weights "$shapes/$shape.json" --encoding $encoding \
          $test -r 3 --ubatch-size 2048 -o jsonl || return 1
      done
    done
  done
}

failed=()
for stage in "${stages[@]}"; do
  echo "== $stage"
  "$stage" 2>&1 | tee "$out/$stage.txt"
  [ "${PIPESTATUS[0]}" -eq 0 ] || failed+=("$stage")
done
[ ${#failed[@]} -eq 0 ] && echo "all stages passed: ${stages[*]}" && exit 0
echo "FAILED: ${failed[*]}"
exit 1
