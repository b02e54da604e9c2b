// tandem eval: perplexity, agreement with a baseline, and log-likelihood tasks.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <optional>

#include "base/error.h"
#include "base/json.h"
#include "cli/model_options.h"
#include "cli/model_path.h"
#include "cli/terminal.h"
#include "cli/verbs.h"
#include "runtime/engine.h"
#include "study/evals/documents.h"
#include "study/evals/evaluate.h"
#include "study/task.h"

namespace tandem {
namespace {

constexpr uint64_t kMaxTextBytes = 1u << 30;
constexpr int64_t kMaxTaskTokens = 2048;  // of a context and its continuation

struct EvalOptions {
  ModelOptions model;
  std::string baseline, text;
  std::string baseline_isa;  // empty: the model's
  std::vector<std::string> protocols;
  std::vector<std::string> tasks;  // NAME=FILE
  int64_t windows = 0, limit = 0;  // 0: all
  int64_t context = 0;             // of protocol D; 0: the model's
  bool json = false;
};

struct NamedTask {
  std::string name;
  std::vector<TaskItem> items;
};

// What to do with the text.
struct TextPlan {
  std::vector<PerplexityProtocol> protocols;
  bool reads_pages = false;  // protocol D
  bool is_empty() const { return protocols.empty() && !reads_pages; }
};

// A model with what scoring it needs.
class Scored {
 public:
  Scored(const std::string& path, const std::string& isa, const EvalOptions& options,
         ThreadPool& pool)
      : checkpoint_(load_checkpoint(path)),
        model_(checkpoint_, pool, isa, options.model.kernels.require_sparse),
        kv_type_(kv_type_of(options.model.kv)) {
    explain_kernels(model_, options.model.kernels);
  }

  const Checkpoint& checkpoint() const { return checkpoint_; }
  const ModelConfig& config() const { return checkpoint_.config; }
  // Before the first use of the source.
  void reserve(int64_t max_window) {
    scorer_.emplace(model_, kv_type_, std::min(max_window, config().max_context));
  }
  LogitSource source() {
    return [this](std::span<const int32_t> tokens, int64_t first, const auto& sink) {
      scorer_->score(tokens, first, sink);
    };
  }

 private:
  Checkpoint checkpoint_;
  Model model_;
  KvType kv_type_;
  std::optional<Scorer> scorer_;
};

// One line that is rewritten; only on a terminal.
EvalProgress progress_line(const std::string& what) {
  if (!stderr_is_terminal()) return {};
  return [what](size_t done, size_t total) {
    write_stderr(
        fmt::format("\r\x1b[K{} {}/{}{}", what, done, total, done == total ? "\r\x1b[K" : ""));
  };
}

std::vector<NamedTask> read_tasks(const EvalOptions& options) {
  std::vector<NamedTask> tasks;
  for (const std::string& given : options.tasks) {
    const size_t equals = given.find('=');
    if (equals == 0 || equals == std::string::npos || equals + 1 == given.size()) {
      fail(ErrorKind::usage, "--task: found {}, expected NAME=FILE", quote(given));
    }
    NamedTask task{given.substr(0, equals), {}};
    task.items = read_task(task.name, given.substr(equals + 1));
    if (options.limit > 0 && options.limit < static_cast<int64_t>(task.items.size())) {
      task.items.resize(static_cast<size_t>(options.limit));
    }
    tasks.push_back(std::move(task));
  }
  return tasks;
}

TextPlan plan_text(const EvalOptions& options) {
  TextPlan plan;
  for (const std::string& letter : options.protocols) {
    if (letter == "D") {
      plan.reads_pages = true;
    } else {
      plan.protocols.push_back(protocol_of(letter));
    }
  }
  if (plan.is_empty() && !options.text.empty()) plan.protocols.push_back(protocol_of("B"));
  if (!plan.is_empty() && options.text.empty()) {
    fail(ErrorKind::usage, "--ppl without --text; expected the text to read");
  }
  const auto is_b = [](const PerplexityProtocol& p) { return p.letter == 'B'; };
  if (!options.baseline.empty() && std::ranges::none_of(plan.protocols, is_b)) {
    fail(ErrorKind::usage,
         "--baseline compares on protocol B's windows; give --text, and B to --ppl");
  }
  return plan;
}

Json to_json(const MeanError& value) { return {{"value", value.mean}, {"stderr", value.error}}; }

Json to_json(const PerplexityProtocol& protocol, const TextResult& result) {
  Json json = {{"protocol", std::string(1, protocol.letter)},
               {"what", protocol.name},
               {"windows", result.num_windows},
               {"scored_tokens", result.num_scored},
               {"perplexity", to_json(result.perplexity)}};
  if (result.log_ratio) json["log_ratio"] = to_json(*result.log_ratio);
  if (result.kl_divergence) json["kl_divergence"] = to_json(*result.kl_divergence);
  if (result.top1_agreement) json["top1_agreement"] = to_json(*result.top1_agreement);
  return json;
}

Json to_json(const DocumentsResult& result) {
  return {{"protocol", "D"},
          {"what", "pages, each in windows of the whole context (lm-eval)"},
          {"pages", result.num_documents},
          {"windows", result.num_windows},
          {"scored_tokens", result.num_scored},
          {"word_perplexity", to_json(result.word_perplexity)},
          {"byte_perplexity", to_json(result.byte_perplexity)},
          {"bits_per_byte", to_json(result.bits_per_byte)}};
}

Json to_json(const std::string& name, const TaskResult& result) {
  Json json = {{"task", name}, {"items", result.num_items}, {"acc", to_json(result.acc)}};
  if (result.acc_norm) json["acc_norm"] = to_json(*result.acc_norm);
  if (result.acc_bytes) json["acc_bytes"] = to_json(*result.acc_bytes);
  if (result.perplexity) json["perplexity"] = to_json(*result.perplexity);
  return json;
}

// The two lists of the document as lines of text.
std::string as_text(const Json& document) {
  const auto figure = [](const Json& entry, const char* key, double scale, int digits) {
    if (!entry.contains(key)) return std::string();
    return fmt::format("  {} {:.{}f} +- {:.{}f}", key, scale * entry[key]["value"].get<double>(),
                       digits, scale * entry[key]["stderr"].get<double>(), digits);
  };
  std::string text;
  for (const Json& entry : document["texts"]) {
    text += fmt::format("protocol {}: {}; {} windows, {} tokens\n ",
                        entry["protocol"].get<std::string>(), entry["what"].get<std::string>(),
                        entry["windows"].get<int64_t>(), entry["scored_tokens"].get<int64_t>());
    for (const char* key : {"perplexity", "word_perplexity", "byte_perplexity", "bits_per_byte"}) {
      text += figure(entry, key, 1, 4);
    }
    text += figure(entry, "log_ratio", 1, 5) + figure(entry, "kl_divergence", 1, 5) +
            figure(entry, "top1_agreement", 1, 4) + "\n";
  }
  for (const Json& entry : document["tasks"]) {
    text += fmt::format("{}: {} items\n ", entry["task"].get<std::string>(),
                        entry["items"].get<int64_t>());
    for (const char* key : {"acc", "acc_norm", "acc_bytes"}) text += figure(entry, key, 1, 4);
    text += figure(entry, "perplexity", 1, 3) + "\n";
  }
  return text;
}

Json evaluate_protocols(const EvalOptions& options, const TextPlan& plan, std::string_view text,
                        const Tokenizer& tokenizer, Scored& model, Scored* baseline) {
  Json results = Json::array();
  const TokenizerSpec& spec = model.checkpoint().tokenizer;
  for (const PerplexityProtocol& protocol : plan.protocols) {
    // llama.cpp drops one final line feed of a file.
    const bool drops = protocol.letter == 'B' && text.ends_with('\n');
    const auto tokens = tokenizer.encode(text.substr(0, text.size() - (drops ? 1 : 0)));
    const auto windows =
        protocol_windows(protocol, tokens, spec.add_bos ? spec.bos_id : -1, options.windows);
    const bool compares = baseline != nullptr && protocol.letter == 'B';
    results.push_back(to_json(
        protocol, evaluate_text(model.source(), compares ? baseline->source() : LogitSource(),
                                windows, model.config().vocab_size,
                                progress_line(fmt::format("protocol {}", protocol.letter)))));
  }
  return results;
}

std::vector<Document> read_documents(const EvalOptions& options, const std::string& text,
                                     const Tokenizer& tokenizer, const Scored& model) {
  const int64_t most = model.config().max_context;
  if (options.context > most) {
    fail(ErrorKind::usage, "--ctx: found {}, the model's context is {}", options.context, most);
  }
  std::vector<Document> documents;
  for (const std::string& page : split_pages(text)) {
    if (options.windows > 0 && std::ssize(documents) == options.windows) break;
    documents.push_back(make_document(page, tokenizer, model.checkpoint().tokenizer.add_bos,
                                      options.context > 0 ? options.context : most));
  }
  if (documents.empty()) fail(ErrorKind::usage, "{}: no text", quote(options.text, 400));
  return documents;
}

// The longest window of all that is asked for.
int64_t longest_window(const TextPlan& plan, const std::vector<Document>& documents, bool has_tasks,
                       const ModelConfig& config) {
  int64_t longest = has_tasks ? kMaxTaskTokens : 1;
  for (const PerplexityProtocol& protocol : plan.protocols) {
    if (protocol.window > config.max_context) {
      fail(ErrorKind::usage, "protocol {}: windows of {} tokens, the model's context is {}",
           protocol.letter, protocol.window, config.max_context);
    }
    longest = std::max(longest, protocol.window);
  }
  for (const Document& document : documents) {
    for (const ScoredSpan& window : document.windows) {
      longest = std::max<int64_t>(longest, std::ssize(window.tokens) - 1);
    }
  }
  return longest;
}

int evaluate(const EvalOptions& options) {
  // What a user may have mistyped is found before a model is read.
  const TextPlan plan = plan_text(options);
  const std::vector<NamedTask> tasks = read_tasks(options);
  if (plan.is_empty() && tasks.empty()) {
    fail(ErrorKind::usage, "nothing to evaluate; give --text FILE or --task NAME=FILE");
  }
  const std::string text = plan.is_empty() ? "" : read_text_file(options.text, kMaxTextBytes);
  const std::string isa = chosen_isa(options.model.isa);
  ThreadPool pool(chosen_threads(options.model.threads));
  const std::string path = resolve_model_path(options.model.model).string();
  Scored model(path, isa, options, pool);
  const ModelConfig& config = model.config();
  const Tokenizer tokenizer(model.checkpoint().tokenizer);
  std::vector<Document> documents;
  if (plan.reads_pages) documents = read_documents(options, text, tokenizer, model);
  const int64_t longest = longest_window(plan, documents, !tasks.empty(), config);
  model.reserve(longest);
  std::optional<Scored> baseline;
  if (!options.baseline.empty()) {
    const std::string baseline_isa =
        options.baseline_isa.empty() ? isa : chosen_isa(options.baseline_isa);
    baseline.emplace(resolve_model_path(options.baseline).string(), baseline_isa, options, pool);
    if (baseline->config().vocab_size != config.vocab_size) {
      fail(ErrorKind::usage, "--baseline: vocabulary of {} tokens, the model has {}",
           baseline->config().vocab_size, config.vocab_size);
    }
    baseline->reserve(longest);
  }
  Json document = {{"schema", "tandem.eval/1"},
                   {"model", path},
                   {"baseline", options.baseline.empty() ? Json() : Json(options.baseline)},
                   {"kv", options.model.kv},
                   {"isa", isa}};
  document["texts"] =
      evaluate_protocols(options, plan, text, tokenizer, model, baseline ? &*baseline : nullptr);
  if (plan.reads_pages) {
    document["texts"].push_back(to_json(evaluate_documents(
        model.source(), documents, config.vocab_size, progress_line("protocol D, page"))));
  }
  document["tasks"] = Json::array();
  for (const NamedTask& task : tasks) {
    document["tasks"].push_back(to_json(
        task.name,
        evaluate_task(model.source(), tokenizer, task.items, model.checkpoint().tokenizer.add_bos,
                      std::min(kMaxTaskTokens, config.max_context), config.vocab_size,
                      progress_line(task.name))));
  }
  write_stdout(options.json ? dump_json(document, 2) + "\n" : as_text(document));
  return 0;
}

}  // namespace

void add_eval(CLI::App& app, Action& action) {
  const auto options = std::make_shared<EvalOptions>();
  CLI::App* verb = app.add_subcommand("eval", "Perplexity, agreement with a baseline, and tasks");
  verb->add_option("--text", options->text, "Text whose perplexity is wanted")->type_name("FILE");
  verb->add_option("--ppl", options->protocols, "Protocols, like A,B (B)")
      ->delimiter(',')
      ->type_name("LIST");
  verb->add_option("--windows", options->windows,
                   "Read at most N windows of the text, pages in D (all)")
      ->check(whole_number(1, kMaxCount))
      ->type_name("N");
  verb->add_option("--baseline", options->baseline,
                   "Model to compare with, on protocol B's windows")
      ->type_name("MODEL");
  verb->add_option("--baseline-isa", options->baseline_isa,
                   "Instruction set or cuda for the baseline (the model's)")
      ->needs("--baseline")
      ->type_name("NAME");
  verb->add_option("--task", options->tasks, "NAME=FILE; may be repeated")
      ->type_name("NAME=FILE")
      ->expected(1)
      ->take_all();
  verb->add_option("--limit", options->limit, "Ask at most N items of each task (all)")
      ->check(whole_number(1, kMaxCount))
      ->type_name("N");
  add_model_options(*verb, options->model);
  verb->add_flag("--json", options->json, "Print one JSON document");
  verb->add_option("--ctx", options->context,
                   "Tokens of protocol D's windows (the model's context)")
      ->check(whole_number(2, kMaxCount))
      ->type_name("N");
  verb->footer(
      "Protocols, never to be compared with one another: A 2048 tokens, all scored (GPTQ); B 512,\n"
      "second half (llama.cpp); C 2048 in strides of 512 (Hugging Face); D pages of wikitext,\n"
      "by the word (lm-eval); E 512, all scored. After +- stands the standard error.\n"
      "Tasks: hellaswag, arc_easy, arc_challenge, piqa, lambada; any other NAME reads lines\n"
      "{\"context\", \"choices\", \"gold\"}.\n"
      "Examples:\n  tandem eval --text wiki.test.raw --ppl B,D --windows 40\n"
      "  tandem eval int4-folder --text book.txt --baseline bf16-folder\n"
      "  tandem eval --task piqa=piqa.jsonl --task own=questions.jsonl --limit 500 --json");
  verb->callback([options, &action] { action = [options] { return evaluate(*options); }; });
}

}  // namespace tandem
