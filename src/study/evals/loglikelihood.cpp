#include "study/evals/loglikelihood.h"

#include <algorithm>
#include <charconv>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"

namespace tandem {
namespace {

constexpr uint64_t kMaxTaskBytes = uint64_t{1} << 30;

double num_characters(std::string_view text) {
  return static_cast<double>(std::count_if(text.begin(), text.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xC0) != 0x80;
  }));
}

std::vector<std::string_view> lines_of(std::string_view text) {
  std::vector<std::string_view> lines;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    if (line.ends_with('\r')) line.remove_suffix(1);
    lines.push_back(line);
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return lines;
}

std::string without_trailing_space(std::string text) {
  text.erase(text.find_last_not_of(" \t\r\n") + 1);
  return text;
}

// A question's prompt: "Question: ...\nAnswer:", whichever of the two a file has already.
std::string question_prompt(std::string query) {
  query = without_trailing_space(std::move(query));
  if (!query.starts_with("Question:")) query = "Question: " + query;
  return query.ends_with("Answer:") ? query : query + "\nAnswer:";
}

TaskItem item_from_json(const std::string& task, const Json& line, const std::string& where) {
  TaskItem item;
  const bool asks = task == "piqa" || task.starts_with("arc");
  if (task == "lambada") {
    item.context = line.at("context").get<std::string>();
    item.choices = {line.at("continuation").get<std::string>()};
    return item;
  }
  item.context = line.at(line.contains("context") ? "context" : "query").get<std::string>();
  if (asks) item.context = question_prompt(std::move(item.context));
  item.choices = line.at("choices").get<std::vector<std::string>>();
  item.gold = line.at("gold").get<int64_t>();
  if (item.choices.size() < 2 || item.gold < 0 ||
      item.gold >= static_cast<int64_t>(item.choices.size())) {
    fail(ErrorKind::bad_file,
         "{}: gold {} of {} choices; expected at least two and one of them right", where, item.gold,
         item.choices.size());
  }
  return item;
}

// HellaSwag as plain text: a context, the number of the right ending, four endings.
std::vector<TaskItem> read_hellaswag_text(const std::vector<std::string_view>& lines) {
  constexpr size_t kLines = 6;
  std::vector<TaskItem> items;
  for (size_t i = 0; i + kLines <= lines.size(); i += kLines) {
    TaskItem item;
    item.context = std::string(lines[i]);
    const std::string_view gold = lines[i + 1];
    std::from_chars(gold.data(), gold.data() + gold.size(), item.gold);
    if (gold.size() != 1 || item.gold < 0 || item.gold > 3) {
      fail(ErrorKind::bad_file, "line {}: found {}, expected the right ending, 0 to 3", i + 2,
           quote(gold));
    }
    for (size_t c = 2; c < kLines; ++c) item.choices.emplace_back(lines[i + c]);
    items.push_back(std::move(item));
  }
  return items;
}

std::vector<TaskItem> read_json_lines(const std::string& task,
                                      const std::vector<std::string_view>& lines) {
  std::vector<TaskItem> items;
  for (size_t i = 0; i < lines.size(); ++i) {
    const std::string where = fmt::format("line {}", i + 1);
    try {
      items.push_back(item_from_json(task, parse_json(lines[i], where), where));
    } catch (const Json::exception& error) {
      fail(ErrorKind::bad_file, "{}: {}", where, error.what());
    }
  }
  return items;
}

}  // namespace

PairTokens encode_pair(const Tokenizer& tokenizer, std::string context, std::string continuation,
                       bool add_bos, int64_t max_tokens) {
  const size_t end = context.find_last_not_of(" \t\r\n") + 1;
  continuation = context.substr(end) + continuation;
  context.erase(end);
  PairTokens pair;
  pair.tokens = tokenizer.encode(context + continuation);
  pair.num_context = context.empty() ? 0 : static_cast<int64_t>(tokenizer.encode(context).size());
  if (add_bos || pair.num_context == 0) {
    const int32_t prefix = tokenizer.bos_id() >= 0 ? tokenizer.bos_id() : tokenizer.eos_id();
    if (prefix < 0) {
      fail(ErrorKind::usage, "empty context, and the model has neither a BOS nor an EOS token");
    }
    pair.tokens.insert(pair.tokens.begin(), prefix);
    ++pair.num_context;
  }
  const auto size = static_cast<int64_t>(pair.tokens.size());
  // The last token is predicted, never read.
  const int64_t excess = std::max<int64_t>(size - 1 - max_tokens, 0);
  if (pair.num_context >= size || pair.num_context - excess < 1) {
    fail(ErrorKind::usage, "continuation {}: {} tokens; expected 1 to {}", quote(continuation),
         size - pair.num_context, max_tokens);
  }
  pair.tokens.erase(pair.tokens.begin(), pair.tokens.begin() + excess);
  pair.num_context -= excess;
  return pair;
}

PairScore score_pair(const LogitSource& source, const PairTokens& pair, int64_t V) {
  PairScore score;
  score.is_greedy = true;
  const std::span<const int32_t> read(pair.tokens.data(), pair.tokens.size() - 1);
  source(read, pair.num_context - 1, [&](int64_t position, const float* logits) {
    const int32_t next = pair.tokens[static_cast<size_t>(position + 1)];
    score.log_likelihood += static_cast<double>(logits[next]) - log_sum_exp(logits, V);
    score.is_greedy &= std::max_element(logits, logits + V) - logits == next;
    ++score.num_tokens;
  });
  return score;
}

ChoiceResult judge(const TaskItem& item, std::span<const PairScore> scores) {
  CHECK(scores.size() == item.choices.size(), "{} scores of {} choices", scores.size(),
        item.choices.size());
  const auto best_is_gold = [&](const auto& divisor) {
    int64_t best = 0;
    double best_value = 0;
    for (size_t i = 0; i < scores.size(); ++i) {
      const double value = scores[i].log_likelihood / divisor(item.choices[i]);
      if (i > 0 && !(value > best_value)) continue;
      best = static_cast<int64_t>(i);
      best_value = value;
    }
    return best == item.gold;
  };
  return {best_is_gold([](const std::string&) { return 1.0; }),
          best_is_gold([](const std::string& choice) { return num_characters(choice); }),
          best_is_gold([](const std::string& c) { return static_cast<double>(c.size()); })};
}

std::vector<TaskItem> read_task(const std::string& name, const std::string& path) {
  const std::string text = read_text_file(path, kMaxTaskBytes);
  const std::vector<std::string_view> lines = lines_of(text);
  try {
    const bool is_json = text.starts_with('{');
    auto items =
        name == "hellaswag" && !is_json ? read_hellaswag_text(lines) : read_json_lines(name, lines);
    if (items.empty()) fail(ErrorKind::bad_file, "no items");
    return items;
  } catch (const Error& error) {
    fail(error.kind, "{}: {}", quote(path, 400), error.what());
  }
}

}  // namespace tandem
