#!/bin/bash
# Checks and measures on a machine with a GPU that has no Debian packages and lends itself for minutes.
#
# usage: gpu_check.sh STAGE... [--bin FOLDER] [--model FILE] [--text FILE] [--shapes FOLDER] [--out FOLDER]
#   STAGE  smoke     the GPU and what the program says of it
#          parity    every kernel against scalar code
#          sanitize  the same tests under compute-sanitizer, the small ones
#          kernels   time and share of the read limit, kernel by kernel
#          archs     the kernels of older generations against scalar code; with --model and --text its
#                    perplexity by each, within 1 % of the CPU's
#          quality   perplexity on the GPU and on the CPU; needs --model and --text
#          formats   what "tandem compress" writes in each encoding: perplexity on the GPU within 1 % of
#                    the CPU's; needs --model and --text
#          models    decode and prefill of random-weight models
#          energy    joules a token of random-weight models, 25 s each; of --model too where it is given
#          refusals  what cannot run says so in one line, with its exit code; needs --model
# FOLDER of --bin holds tandem, kernels_cuda_{linear,ops,attention,device}_test and bench_cuda_kernels, as the
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
    smoke|parity|archs|sanitize|kernels|quality|formats|models|energy|refusals) stages+=("$1") ;;
    *) echo "gpu_check.sh: '$1' is no stage and no option" >&2; exit 2 ;;
  esac
  shift
done
[ ${#stages[@]} -gt 0 ] || { sed -n '2,21p' "$0" >&2; exit 2; }
mkdir -p "$out"

smoke() {
  nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.sm,clocks.mem,power.limit --format=csv,noheader
  "$bin/tandem" info --device cuda --measure
}
# tests PROGRAM FILTER: in eight processes, since most of the time goes to the scalar code they compare with
tests() {
  local program=$1 filter=$2 shard bad=0 running=()
  for shard in 0 1 2 3 4 5 6 7; do
    GTEST_TOTAL_SHARDS=8 GTEST_SHARD_INDEX=$shard "$bin/$program" --gtest_brief=1 --gtest_filter="$filter" \
      >"$out/$program.$shard" 2>&1 &
    running+=($!)
  done
  for shard in 0 1 2 3 4 5 6 7; do
    wait "${running[$shard]}" || bad=1
    cat "$out/$program.$shard"
    rm -f "$out/$program.$shard"
  done
  return $bad
}
parity() {
  for room in device ops attention linear; do
    echo "$room:"
    tests "kernels_cuda_${room}_test" '-*sm_*' || return 1
  done
}
# perplexity NAME OPTION...: of the model over a few windows, printed with the name and left in $found
perplexity() {
  local name=$1
  shift
  found=$("$bin/tandem" eval "$model" --text "$text" --ppl B --windows 8 --json "$@" |
    sed -n 's/^ *"value": *\([0-9.]*\).*/\1/p' | head -n 1)
  echo "$name: perplexity ${found:-none}"
  [ -n "$found" ]
}
archs() {
  local bad=0 cap room truth
  for cap in sm_75 sm_80 sm_89; do
    for room in ops attention linear; do
      echo "$cap $room:"
      tests "kernels_cuda_${room}_test" "*$cap*" || bad=1
    done
  done
  [ -n "$model" ] && [ -n "$text" ] || return $bad
  perplexity CPU && truth=$found || return 1
  for cap in sm_75 sm_80 sm_89; do
    perplexity "$cap" --device cuda --arch-cap "$cap" &&
      awk "BEGIN { exit !($found > 0.99 * $truth && $found < 1.01 * $truth) }" ||
      { echo "FAILED: $cap is not within 1 % of $truth"; bad=1; }
  done
  return $bad
}
sanitize() {
  compute-sanitizer --error-exitcode 9 "$bin/kernels_cuda_ops_test" --gtest_filter='*Argmax*' --gtest_brief=1 &&
    compute-sanitizer --error-exitcode 9 "$bin/kernels_cuda_attention_test" --gtest_filter='*Window*' --gtest_brief=1 &&
    compute-sanitizer --error-exitcode 9 "$bin/kernels_cuda_linear_test" --gtest_filter='*Neighbours*' --gtest_brief=1 &&
    compute-sanitizer --error-exitcode 9 "$bin/kernels_cuda_device_test" --gtest_filter='*SmallSheets*' --gtest_brief=1
}
kernels() { "$bin/bench_cuda_kernels"; }
quality() {
  for where in cuda cpu; do
    device=(--device cuda)
    [ $where = cpu ] && device=()
    "$bin/tandem" eval "$model" --text "$text" --ppl B --windows 40 "${device[@]}" || return 1
  done
}
# format NAME OPTION...: the model, compressed so
format() {
  local name=$1 model=$model folder="$out/formats/$1" truth
  shift
  rm -rf "$folder"
  "$bin/tandem" compress "$model" --no-gate -o "$folder" "$@" >"$out/formats/log" 2>&1 ||
    { echo "FAILED: $name: $(tail -n 1 "$out/formats/log")"; return 1; }
  model=$folder
  perplexity "$name on the CPU" && truth=$found || return 1
  perplexity "$name" --device cuda &&
    awk "BEGIN { exit !($found > 0.99 * $truth && $found < 1.01 * $truth) }" ||
    { echo "FAILED: $name is not within 1 % of $truth"; return 1; }
  rm -rf "$folder"
}
formats() {
  local bad=0 made="$out/formats" few=(--samples 16 --length 256 --calibration "$text")
  mkdir -p "$made"
  printf '%s\n' -1 -0.72 -0.54 -0.4 -0.29 -0.19 -0.09 0 0.08 0.16 0.25 0.34 0.44 0.56 0.72 1 >"$made/book"
  printf '%s\n' 'format = "gptq"' '[[step]]' 'method = "gptq"' 'bits = 4' 'group = 64' 'order = "act"' \
    'symmetric = false' >"$made/act.toml"
  printf '%s\n' 'activations = "static"' '[[step]]' 'method = "rtn"' 'bits = 8' 'group = 0' >"$made/static.toml"
  format int4-asymmetric --recipe int4 --group 64 --asymmetric || bad=1
  format awq --recipe int4 --group 64 --asymmetric --format awq || bad=1
  format gptq-act-order --recipe "$made/act.toml" "${few[@]}" || bad=1
  format int3 --recipe int3 --group 64 --asymmetric || bad=1
  format int8-group --recipe int8 --group 64 --asymmetric || bad=1
  format fp8-block --recipe fp8-block || bad=1
  format codebook --recipe codebook --codebook "$made/book" || bad=1
  format int8-static --recipe "$made/static.toml" "${few[@]}" || bad=1
  return $bad
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
energy() {
  for encoding in "bf16" "int8" "int4-g128 --lm-head q8_0"; do
    # shellcheck disable=SC2086
    "$bin/tandem" bench --device cuda --random-weights "$shapes/Llama-3.1-8B.json" --encoding $encoding \
      -p 0 -n 128 -d 128 -r 3 --energy -o jsonl || return 1
  done
  [ -z "$model" ] || "$bin/tandem" bench --device cuda -m "$model" -p 0 -n 128 -d 128 -r 3 --energy -o jsonl
}

# refused CODE PART COMMAND...: the command ends with this code and one line that holds the part
refused() {
  local code=$1 part=$2 message found
  shift 2
  message=$(timeout 60 "$@" 2>&1 >/dev/null)
  found=$?
  if [ $found -eq "$code" ] && [ "$(wc -l <<<"$message")" -eq 1 ] && [[ $message == *"$part"* ]]; then
    echo "exit $found: $message"
    return 0
  fi
  echo "FAILED: $* ended with $found, expected $code and one line with '$part': $message"
  return 1
}
refusals() {
  local bad=0 small="$out/refusals"
  mkdir -p "$small"
  sed 's/"num_layers": *[0-9]*/"num_layers": 1000/' "$shapes/Llama-3.1-8B.json" >"$small/large.json"
  refused 5 "cuda:99: there" "$bin/tandem" bench --device cuda:99 -m "$model" || bad=1
  refused 2 "expected cuda or cuda:N" "$bin/tandem" bench --device gpu -m "$model" || bad=1
  refused 5 "no NVIDIA GPU can be used: " env CUDA_VISIBLE_DEVICES= "$bin/tandem" info --device cuda || bad=1
  refused 5 "bf16 weights on sm_75 (its tensor cores have no bf16), which runs f16" "$bin/tandem" bench --device cuda \
    --arch-cap sm_75 --random-weights "$shapes/Llama-3.2-1B.json" --encoding bf16 || bad=1
  refused 2 "expected sm_75, sm_80 or sm_89" "$bin/tandem" bench --device cuda --arch-cap sm_60 -m "$model" || bad=1
  refused 5 "skips no zeros" "$bin/tandem" bench --device cuda --arch-cap sm_80 --require-sparse \
    --random-weights "$shapes/Llama-3.2-1B.json" --encoding bf16-2:4 || bad=1
  refused 4 " bytes, cuda:0 has " "$bin/tandem" bench --device cuda --random-weights "$small/large.json" || bad=1
  refused 4 "do not fit the" "$bin/tandem" bench --device cuda --random-weights "$shapes/Llama-3.1-8B.json" \
    -p 0 -n 1 -d 100000 --npl 128 || bad=1
  /usr/bin/env python3 "$(dirname "$0")/make_nan_gguf.py" "$model" "$small/nan.gguf" &&
    { refused 1 "NaN" "$bin/tandem" run "$small/nan.gguf" -p hello -n 4 --device cuda || bad=1; }
  rm -f "$small/nan.gguf"
  return $bad
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
