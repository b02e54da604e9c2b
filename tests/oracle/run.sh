#!/bin/bash
# Holds a built tandem against the reference implementations and rewrites the goldens.
#
# usage: tests/oracle/run.sh [BUILD_FOLDER [VENV_FOLDER]]
#   BUILD_FOLDER  where tandem and its tests were built (build/release)
#   VENV_FOLDER   a Python with requirements.txt; made when it is absent (.venv/oracle)
# Exits 1 when anything differs. A golden that has changed shows in `git diff`.
set -u
oracle=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$oracle/../.." && pwd)
build=$(realpath -m "${1:-$root/build/release}")
venv=$(realpath -m "${2:-$root/.venv/oracle}")
case ${XDG_CACHE_HOME:-} in
  /*) cache=$XDG_CACHE_HOME ;;
  *) cache=$HOME/.cache ;;  # the XDG standard ignores relative paths
esac
model=$cache/tandem/models/SmolLM2-135M-Instruct.Q4_1.gguf
wikitext=$root/../shared/data/wikitext-2/test.raw
golden=$root/tests/golden
llama=${LLAMA_CPP_BIN:-llama.cpp/build/bin}

for needed in "$build/tandem" "$model"; do
  if [ ! -e "$needed" ]; then
    echo "run.sh: $needed is absent; \`make oracles\` builds and fetches it" >&2
    exit 2
  fi
done
if [ ! -x "$venv/bin/python" ]; then
  echo "making $venv (about 6 GB, most of it torch)"
  if ! /usr/bin/python3 -m venv "$venv" || ! "$venv/bin/pip" install -q -r "$oracle/requirements.txt"; then
    rm -rf "$venv"
    echo "run.sh: the reference packages cannot be installed; name a folder that has them" >&2
    exit 2
  fi
fi
export PYTHONDONTWRITEBYTECODE=1 TQDM_DISABLE=1 HF_HUB_OFFLINE=1 OMP_NUM_THREADS=${OMP_NUM_THREADS:-$(nproc)}

names=() results=() failures=0
# check NAME COMMAND...: runs it and remembers how it ended (77: skipped)
check() {
  local name=$1 start=$SECONDS result=equal
  shift
  echo "== $name"
  "$@"
  case $? in
    0) ;;
    77) result=skipped ;;
    *) result=DIFFERS failures=$((failures + 1)) ;;
  esac
  names+=("$name")
  results+=("$result, $((SECONDS - start)) s")
}
python() { "$venv/bin/python" "$@"; }

texts=()
[ -e "$wikitext" ] && texts=(--text "$wikitext")
check "GGUF decode" python "$oracle/gguf_decode.py" "$build/tests/formats/dump_tensor" "$model"
every_type() {
  local file status
  file=$(mktemp) && python "$oracle/gguf_types.py" "$file" &&
    python "$oracle/gguf_decode.py" "$build/tests/formats/dump_tensor" "$file"
  status=$?
  rm -f "$file"
  return $status
}
check "GGUF decode, every type" every_type
check "files accepted" python "$oracle/accept_oracle.py" "$build/tests/fuzz/judge_files"
check "token ids" python "$oracle/tokenizer_oracle.py" --model "$model" \
  --program "$build/tests/text/encode_lines" --write-golden "$golden/text/smollm2_ids.jsonl" \
  ${texts[@]+"${texts[@]}"}
check "other vocabularies" python "$oracle/vocabulary_oracle.py" \
  --folder "${LLAMA_CPP_MODELS:-llama.cpp/models}" --program "$build/tests/text/encode_lines"
check "SentencePiece tokenizers" python "$oracle/piece_oracle.py" \
  --folder "${LLAMA_CPP_MODELS:-llama.cpp/models}" --program "$build/tests/text/encode_lines"
check "chat templates" python "$oracle/chat_template_oracle.py" --model "$model" \
  --program "$build/tests/text/render_chats" --write-golden "$golden/templates/chats.json" \
  --templates "${LLAMA_CPP_MODELS:-llama.cpp/models}/templates"
check "logits" python "$oracle/logits_oracle.py" --model "$model"
check "log-likelihoods" python "$oracle/loglikelihood_oracle.py" --model "$model"
check "greedy answers" python "$oracle/greedy_oracle.py" --model "$model"
check "perplexity" python "$oracle/perplexity_oracle.py" --model "$model" --text "$wikitext"
check "compressed folders" python "$oracle/compressed_oracle.py" --model "$model" --build "$build"
check "integers with zero points" python "$oracle/integers_oracle.py" --model "$model" --build "$build"
gptqmodel() {
  if [ ! -x "${GPTQMODEL_PYTHON:-}" ]; then
    echo "gptqmodel: name a Python that has it in GPTQMODEL_PYTHON"
    return 77
  fi
  "$GPTQMODEL_PYTHON" "$oracle/gptqmodel_oracle.py" --model "$model" --build "$build" --logits
}
check "GPTQ and AWQ folders" gptqmodel
sparse() {
  if [ ! -x "${COMPRESSED_TENSORS_013_PYTHON:-}" ]; then
    echo "2:4 folders: name a Python that has compressed-tensors 0.13 in COMPRESSED_TENSORS_013_PYTHON"
    return 77
  fi
  "$COMPRESSED_TENSORS_013_PYTHON" "$oracle/sparse_oracle.py" --model "$model" --build "$build"
}
check "2:4 folders" sparse
check "bitsandbytes folders" python "$oracle/bitsandbytes_oracle.py" --model "$model" --build "$build"
check "float folders" python "$oracle/float_oracle.py" --model "$model" --build "$build"
check "GGUF files" python "$oracle/gguf_write_oracle.py" --model "$model" --build "$build" \
  --llama-cpp "$llama" ${texts[@]+"${texts[@]}"}
check "GGUF files with pieces" python "$oracle/gguf_pieces_oracle.py" --build "$build" --llama-cpp "$llama"
check "written tokenizers" python "$oracle/tokenizer_write_oracle.py" --model "$model" \
  --build "$build" --folder "${LLAMA_CPP_MODELS:-llama.cpp/models}"
check "families" python "$oracle/families_oracle.py"
check "families, written and by llama.cpp" python "$oracle/families_check.py" --build "$build" \
  --llama "$llama"
check "quantized files by llama.cpp" python "$oracle/gguf_kquants.py" --build "$build" --llama "$llama"
check "our families" "$build/tests/model/model_families_test" --gtest_brief=1
check "our logits, answers, perplexity" "$build/tests/model/model_golden_test" --gtest_brief=1
check "our log-likelihoods" "$build/tests/study/study_loglikelihood_test" --gtest_brief=1
check "our pages" "$build/tests/study/study_documents_test" --gtest_brief=1
check "our rounding" "$build/tests/compress/compress_rtn_test" --gtest_brief=1
check "our double quantization" "$build/tests/compress/compress_double_quantization_test" --gtest_brief=1
check "our rounding to zero points" "$build/tests/compress/compress_rtn_grid_test" --gtest_brief=1
check "our tables" "$build/tests/compress/compress_nearest_of_table_test" --gtest_brief=1
check "our GGUF blocks" "$build/tests/compress/compress_quantize_test" --gtest_brief=1

echo
for i in "${!names[@]}"; do
  printf '%-32s %s\n' "${names[$i]}" "${results[$i]}"
done
[ "$failures" -eq 0 ]
