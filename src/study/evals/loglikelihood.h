// Multiple choice and last-word tasks by log-likelihood, with lm-eval's requests and metrics.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "study/evals/perplexity.h"
#include "text/tokenizer.h"

namespace tandem {

// A context and what may follow it. A task of one choice asks whether greedy decoding writes it.
struct TaskItem {
  std::string context;
  std::vector<std::string> choices;  // as they are judged, without the space that joins them
  int64_t gold = 0;
};

// What a model is asked to score: tokens [num_context, size) given those before them.
struct PairTokens {
  std::vector<int32_t> tokens;
  int64_t num_context = 0;  // at least 1
};

// context and continuation are encoded as one text, trailing spaces of the context moving over;
// an empty context becomes the BOS, or the EOS where there is none. Tokens beyond max_tokens are
// taken off the front of the context. Throws usage when nothing is left to score.
PairTokens encode_pair(const Tokenizer& tokenizer, std::string context, std::string continuation,
                       bool add_bos, int64_t max_tokens);

struct PairScore {
  int64_t num_tokens = 0;
  double log_likelihood = 0;
  bool is_greedy = false;  // every token is the most likely one (of equals, the lowest id)
};

// source: the model; V: its vocabulary.
PairScore score_pair(const LogitSource& source, const PairTokens& pair, int64_t V);

struct ChoiceResult {
  bool right = false;               // the largest sum wins
  bool right_by_character = false;  // the largest sum over the choice's characters
  bool right_by_byte = false;
};
// scores[i] belongs to item.choices[i].
ChoiceResult judge(const TaskItem& item, std::span<const PairScore> scores);

// The items of a file, as the task `name` asks them (docs/use.md): "hellaswag", "arc_easy",
// "arc_challenge", "piqa", "lambada", or any other name for lines {context, choices, gold}. Throws
// bad_file naming the line.
std::vector<TaskItem> read_task(const std::string& name, const std::string& path);

// The part of a task that a study asks: the first max_items items of the file.
struct TaskFile {
  std::string name, path;
  int64_t max_items = 0;
};

}  // namespace tandem
