// tandem eval: perplexity, agreement with a baseline, and log-likelihood tasks.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <optional>

#include "base/cpu.h"
#include "base/error.h"
#include "base/json.h"
#include "cli/check_device.h"
#include "cli/model_path.h"
#include "cli/terminal.h"
#include "cli/verbs.h"
#include "kernels/table.h"
#include "runtime/engine.h"
#include "study/evals/evaluate.h"
#include "study/task.h"

namespace tandem {
namespace {

constexpr uint64_t kMaxTextBytes = 1u << 30;
constexpr int64_t kMaxTaskTokens = 2048;  // of a context and its continuation

struct EvalOptions {
  std::string model, baseline, text;
  std::vector<std::string> protocols;
  std::vector<std::string> tasks;  // NAME=FILE
  int64_t windows = 0, limit = 0;  // 0: all
  std::string kv = "bf16", isa;
  int threads = 0;
  bool json = false;
};

struct NamedTask {
  std::string name;
  std::vector<TaskItem> items;
};

// A model with what scoring it needs.
class Scored {
 public:
  Scored(const std::string& path, const EvalOptions& options, ThreadPool& pool, int64_t max_window)
      : checkpoint_(load_checkpoint(path)),
        model_(checkpoint_, pool, options.isa.empty() ? best_isa() : options.isa),
        scorer_(model_, kv_type_of(options.kv),
                std::min(max_window, checkpoint_.config.max_context)) {}

  const Checkpoint& checkpoint() const { return checkpoint_; }
  int64_t vocab_size() const { return checkpoint_.config.vocab_size; }
  LogitSource source() {
    return [this](std::span<const int32_t> tokens, int64_t first, const auto& sink) {
      scorer_.score(tokens, first, sink);
    };
  }

 private:
  Checkpoint checkpoint_;
  Model model_;
  Scorer scorer_;
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

std::vector<PerplexityProtocol> read_protocols(const EvalOptions& options) {
  std::vector<PerplexityProtocol> protocols;
  for (const std::string& letter : options.protocols) protocols.push_back(protocol_of(letter));
  if (protocols.empty() && !options.text.empty()) protocols.push_back(protocol_of("B"));
  if (!protocols.empty() && options.text.empty()) {
    fail(ErrorKind::usage, "--ppl without --text; expected the text to read");
  }
  const auto is_b = [](const PerplexityProtocol& p) { return p.letter == 'B'; };
  if (!options.baseline.empty() && !std::any_of(protocols.begin(), protocols.end(), is_b)) {
    fail(ErrorKind::usage,
         "--baseline compares on protocol B's windows; give --text, and B to --ppl");
  }
  return protocols;
}

Json to_json(const MeanError& value) { return {{"value", value.mean}, {"stderr", value.error}}; }

Json to_json(const PerplexityProtocol& protocol, const TextResult& result) {
  Json json = {{"protocol", std::string(1, protocol.letter)},
               {"what", protocol.name},
               {"windows", result.num_windows},
               {"scored_tokens", result.num_scored},
               {"perplexity", to_json(result.perplexity)}};
  if (result.kl_divergence) json["kl_divergence"] = to_json(*result.kl_divergence);
  if (result.top1_agreement) json["top1_agreement"] = to_json(*result.top1_agreement);
  return json;
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
    text += figure(entry, "perplexity", 1, 4) + figure(entry, "kl_divergence", 1, 5) +
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

Json evaluate_texts(const EvalOptions& options, const std::vector<PerplexityProtocol>& protocols,
                    const Tokenizer& tokenizer, Scored& model, Scored* baseline) {
  Json results = Json::array();
  if (protocols.empty()) return results;
  const std::string text = read_text_file(options.text, kMaxTextBytes);
  const TokenizerSpec& spec = model.checkpoint().tokenizer;
  for (const PerplexityProtocol& protocol : protocols) {
    // llama.cpp drops one final line feed of a file.
    const bool drops = protocol.letter == 'B' && text.ends_with('\n');
    const auto tokens =
        tokenizer.encode(std::string_view(text).substr(0, text.size() - (drops ? 1 : 0)));
    const auto windows =
        protocol_windows(protocol, tokens, spec.add_bos ? spec.bos_id : -1, options.windows);
    const bool compares = baseline != nullptr && protocol.letter == 'B';
    results.push_back(to_json(
        protocol, evaluate_text(model.source(), compares ? baseline->source() : LogitSource(),
                                windows, model.vocab_size(),
                                progress_line(fmt::format("protocol {}", protocol.letter)))));
  }
  return results;
}

int evaluate(const EvalOptions& options) {
  // What a user may have mistyped is found before a model is read.
  const std::vector<PerplexityProtocol> protocols = read_protocols(options);
  const std::vector<NamedTask> tasks = read_tasks(options);
  if (protocols.empty() && tasks.empty()) {
    fail(ErrorKind::usage, "nothing to evaluate; give --text FILE or --task NAME=FILE");
  }
  if (!options.isa.empty()) require_isa(options.isa);
  const std::string path = resolve_model_path(options.model).string();
  int64_t max_window = tasks.empty() ? 0 : kMaxTaskTokens;
  for (const auto& protocol : protocols) max_window = std::max(max_window, protocol.window);
  ThreadPool pool(options.threads > 0 ? options.threads : usable_cpus());
  Scored model(path, options, pool, max_window);
  const ModelConfig& config = model.checkpoint().config;
  for (const auto& protocol : protocols) {
    if (protocol.window > config.max_context) {
      fail(ErrorKind::usage, "protocol {}: windows of {} tokens, the model's context is {}",
           protocol.letter, protocol.window, config.max_context);
    }
  }
  const Tokenizer tokenizer(model.checkpoint().tokenizer);
  std::optional<Scored> baseline;
  if (!options.baseline.empty()) {
    baseline.emplace(options.baseline, options, pool, max_window);
    if (baseline->vocab_size() != model.vocab_size()) {
      fail(ErrorKind::usage, "--baseline: vocabulary of {} tokens, the model has {}",
           baseline->vocab_size(), model.vocab_size());
    }
  }
  Json document = {{"schema", "tandem.eval/1"},
                   {"model", path},
                   {"baseline", options.baseline.empty() ? Json() : Json(options.baseline)},
                   {"kv", options.kv},
                   {"isa", options.isa.empty() ? std::string(best_isa()) : options.isa}};
  document["texts"] =
      evaluate_texts(options, protocols, tokenizer, model, baseline ? &*baseline : nullptr);
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
  verb->add_option("MODEL", options->model,
                   "GGUF file or Hugging Face folder (default: the set-up's model)");
  verb->add_option("--text", options->text, "Text whose perplexity is wanted")->type_name("FILE");
  verb->add_option("--ppl", options->protocols, "Protocols, like A,B (B)")
      ->delimiter(',')
      ->type_name("LIST");
  verb->add_option("--windows", options->windows, "Read at most N windows of the text (all)")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 30).description(""))
      ->type_name("N");
  verb->add_option("--baseline", options->baseline,
                   "Model to compare with: KL divergence and top-1 agreement (protocol B)")
      ->type_name("MODEL");
  verb->add_option("--task", options->tasks, "NAME=FILE; may be repeated")
      ->type_name("NAME=FILE")
      ->expected(1)
      ->take_all();
  verb->add_option("--limit", options->limit, "Ask at most N items of each task (all)")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 30).description(""))
      ->type_name("N");
  verb->add_option("--kv", options->kv, "Precision of the KV cache")
      ->capture_default_str()
      ->check(CLI::IsMember({"bf16", "int8"}));
  verb->add_option("--threads", options->threads, "Default: all CPUs this process may use")
      ->check(CLI::Range(1, 4096).description(""))
      ->type_name("N");
  verb->add_option("--isa", options->isa, "Instruction set: avx512, avx2 or ref")
      ->type_name("NAME");
  add_device_option(verb, options->isa);
  verb->add_flag("--json", options->json, "Print one JSON document");
  verb->footer(
      "Protocols, never to be compared with one another: A 2048 tokens, all scored (GPTQ); B 512, "
      "second half\n(llama.cpp); C 2048 in strides of 512 (Hugging Face); E 512, all scored.\n"
      "Tasks: hellaswag, arc_easy, arc_challenge, piqa, lambada; any other NAME reads lines "
      "{\"context\", \"choices\",\n\"gold\"}. After +- stands the standard error.\n"
      "Examples:\n  tandem eval --text wiki.test.raw --ppl B --windows 40\n"
      "  tandem eval int4-folder --text book.txt --baseline bf16-folder --task piqa=piqa.jsonl");
  verb->callback([options, &action] { action = [options] { return evaluate(*options); }; });
}

}  // namespace tandem
