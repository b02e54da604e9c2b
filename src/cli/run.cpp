// tandem run: one prompt, one answer, streamed to standard output.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <optional>

#include "base/clock.h"
#include "base/error.h"
#include "base/json.h"
#include "cli/chat_prompt.h"
#include "cli/model_options.h"
#include "cli/model_path.h"
#include "cli/terminal.h"
#include "cli/verbs.h"
#include "runtime/engine.h"
#include "study/task.h"
#include "text/detokenizer.h"

namespace tandem {
namespace {

constexpr uint64_t kMaxPromptBytes = 64u << 20;
constexpr uint64_t kRequestId = 1;

// Static initialisation is within a millisecond of the start of the process: what a user waits for
// the first token counts from here.
const int64_t process_start_ns = now_ns();

struct RunOptions {
  ModelOptions model;
  std::optional<std::string> prompt;
  std::string file;
  bool chat = false;
  std::string system;
  std::string tools;  // a file
  int64_t max_tokens = 256;
  SamplingParams sampling;
  std::vector<std::string> stops;
  int64_t context = 0;  // 0: as many tokens as the prompt and the answer need
  bool json = false, ignore_eos = false, verbose = false;
};

struct RunResult {
  int64_t num_prompt = 0;
  std::string text;
  std::vector<int32_t> tokens;
  std::string finish_reason;
  double load_seconds = 0;         // process start to the request's submission
  double first_token_seconds = 0;  // process start to the first token
  double prefill_seconds = 0;
  double decode_seconds = 0;  // first token to last token
};

std::string read_stdin() {
  std::string text;
  char block[1 << 16];
  while (const size_t n = std::fread(block, 1, sizeof block, stdin)) {
    text.append(block, n);
    if (text.size() > kMaxPromptBytes) {
      fail(ErrorKind::usage, "standard input: more than {} bytes of prompt", kMaxPromptBytes);
    }
  }
  if (std::ferror(stdin)) fail(ErrorKind::system, "cannot read standard input");
  return text;
}

// One final line feed is the file's or the pipe's, not the prompt's.
std::string without_last_line_end(std::string text) {
  if (text.ends_with('\n')) text.pop_back();
  if (text.ends_with('\r')) text.pop_back();
  return text;
}

std::string read_prompt(const RunOptions& options) {
  if (options.prompt && !options.file.empty()) {
    fail(ErrorKind::usage, "both --prompt and --file given; expected one of them");
  }
  if (!options.file.empty()) {
    return without_last_line_end(read_text_file(options.file, kMaxPromptBytes));
  }
  if (options.prompt && *options.prompt != "-") return *options.prompt;
  const bool waits = !options.prompt && stdin_is_terminal();  // for one who meant no input
  std::string prompt = waits ? "" : without_last_line_end(read_stdin());
  if (prompt.empty()) {
    fail(ErrorKind::usage, "no prompt; give -p TEXT, -f FILE, or pipe it into standard input");
  }
  return prompt;
}

std::vector<int32_t> encode_prompt(const RunOptions& options, const Checkpoint& checkpoint,
                                   const Tokenizer& tokenizer, const std::string& prompt,
                                   Json tools) {
  if (!options.chat) return tokenizer.encode_prompt(prompt);
  std::vector<ChatMessage> messages;
  if (!options.system.empty()) messages.push_back({"system", options.system});
  messages.push_back({"user", prompt});
  return ChatPrompt(checkpoint, tokenizer, std::move(tools), "run it without --chat")
      .encode(messages);
}

EngineOptions engine_options(const RunOptions& options, const ModelConfig& config,
                             int64_t num_prompt) {
  EngineOptions engine;
  engine.kv_type = kv_type_of(options.model.kv);
  engine.max_sequences = 1;
  // Just what this answer can need; capped below the sum so that it cannot overflow.
  const int64_t room = std::max<int64_t>(config.max_context - num_prompt, 0);
  engine.max_context =
      options.context > 0
          ? options.context
          : std::min(num_prompt + std::min(options.max_tokens, room), config.max_context);
  engine.max_context = std::max<int64_t>(engine.max_context, 2);
  // A short prompt needs no buffers for a long prefill.
  engine.max_step_tokens = std::clamp<int64_t>(num_prompt, 16, engine.max_step_tokens);
  return engine;
}

// Streams the answer; an interrupt ends it and keeps the text.
RunResult generate(const RunOptions& options, const Model& model, const Tokenizer& tokenizer,
                   std::vector<int32_t> prompt) {
  const InterruptGuard guard;
  RunResult result;
  result.num_prompt = static_cast<int64_t>(prompt.size());
  Detokenizer detokenizer(tokenizer, options.stops);
  Engine engine(model, engine_options(options, model.config(), result.num_prompt));
  Request request;
  request.id = kRequestId;
  request.prompt = std::move(prompt);
  request.max_tokens = options.max_tokens;
  request.sampling = options.sampling;
  if (!options.ignore_eos) request.stop_tokens = tokenizer.stop_ids();

  const auto give = [&](const std::string& text) {
    result.text += text;
    if (!options.json && !text.empty()) write_stdout(text);
  };
  const int64_t submit_ns = now_ns();
  int64_t first_ns = 0, last_ns = 0;
  std::optional<TokenEvent> event;  // one sequence: at most one event a step
  const TokenSink sink = [&](const TokenEvent& given) { event = given; };
  engine.submit(std::move(request));
  while (result.finish_reason.empty() && engine.step(sink)) {
    if (InterruptGuard::interrupted()) result.finish_reason = "interrupted";
    if (!event) continue;
    last_ns = now_ns();
    if (first_ns == 0) first_ns = last_ns;
    if (event->token >= 0) {
      result.tokens.push_back(event->token);
      give(detokenizer.push(event->token));
    }
    if (detokenizer.stopped()) {
      result.finish_reason = "stop_string";
    } else if (event->finish != FinishReason::none) {
      result.finish_reason = finish_reason_name(event->finish);
    }
    event.reset();
  }
  give(detokenizer.finish());
  const auto seconds = [](int64_t from, int64_t to) {
    return static_cast<double>(to - from) * 1e-9;
  };
  result.load_seconds = seconds(process_start_ns, submit_ns);
  if (first_ns != 0) {
    result.first_token_seconds = seconds(process_start_ns, first_ns);
    result.prefill_seconds = seconds(submit_ns, first_ns);
    result.decode_seconds = seconds(first_ns, last_ns);
  }
  return result;
}

// Tokens a second; 0 when nothing was timed. The first token belongs to the prefill.
double prefill_rate(const RunResult& result) {
  return result.prefill_seconds > 0
             ? static_cast<double>(result.num_prompt) / result.prefill_seconds
             : 0;
}
double decode_rate(const RunResult& result) {
  if (result.decode_seconds <= 0 || result.tokens.size() < 2) return 0;
  return static_cast<double>(result.tokens.size() - 1) / result.decode_seconds;
}

void print_json(const RunOptions& options, const Model& model, const Checkpoint& checkpoint,
                const RunResult& result) {
  Json json;
  json["schema"] = "tandem.run/1";
  json["model"] = checkpoint.path.string();
  json["isa"] = std::string(model.isa());
  json["kernels"] = model.kernels_in_use();
  json["threads"] = model.pool().size();
  json["kv"] = options.model.kv;
  json["seed"] = options.sampling.seed;
  json["prompt_tokens"] = result.num_prompt;
  json["text"] = result.text;
  json["tokens"] = result.tokens;
  json["finish_reason"] = result.finish_reason;
  json["timings"] = {{"load_seconds", result.load_seconds},
                     {"first_token_seconds", result.first_token_seconds},
                     {"prefill_tokens_per_second", prefill_rate(result)},
                     {"decode_tokens_per_second", decode_rate(result)}};
  write_stdout(dump_json(json, 2) + "\n");
}

void print_summary(const Model& model, const RunResult& result) {
  write_stderr(fmt::format(
      "[{} prompt tokens at {:.1f} tok/s, {} new at {:.1f} tok/s, first token {:.3f} s after "
      "start, "
      "{} on {} threads, {}]\n",
      result.num_prompt, prefill_rate(result), result.tokens.size(), decode_rate(result),
      result.first_token_seconds, model.isa(), model.pool().size(), result.finish_reason));
}

int run(const RunOptions& options) {
  check_sampling(options.sampling);
  if (!options.system.empty() && !options.chat) {
    fail(ErrorKind::usage, "--system without --chat; only the chat template has a system message");
  }
  if (!options.tools.empty() && !options.chat) {
    fail(ErrorKind::usage,
         "--tools without --chat; only the chat template shows a model its tools");
  }
  const std::string isa = chosen_isa(options.model.isa);
  const int threads = chosen_threads(options.model.threads);
  const std::filesystem::path path = resolve_model_path(options.model.model);
  Json tools = options.tools.empty() ? Json() : read_tools(options.tools);
  const std::string prompt = read_prompt(options);
  ThreadPool pool(threads);
  const Checkpoint checkpoint = load_checkpoint(path);
  for (const std::string& warning : checkpoint.warnings)
    write_stderr("tandem: warning: " + warning + "\n");
  const Tokenizer tokenizer(checkpoint.tokenizer);
  std::vector<int32_t> tokens =
      encode_prompt(options, checkpoint, tokenizer, prompt, std::move(tools));
  const Model model(checkpoint, pool, isa, options.model.kernels.require_sparse);
  explain_kernels(model, options.model.kernels);
  const RunResult result = generate(options, model, tokenizer, std::move(tokens));
  if (options.json) {
    print_json(options, model, checkpoint, result);
  } else if (!result.text.ends_with('\n')) {
    write_stdout("\n");
  }
  if (options.verbose || stderr_is_terminal()) print_summary(model, result);
  return result.finish_reason == "interrupted" ? kExitInterrupted : 0;
}

}  // namespace

void add_run(CLI::App& app, Action& action) {
  const auto options = std::make_shared<RunOptions>();
  CLI::App* verb = app.add_subcommand("run", "Answer one prompt, streaming the text");
  verb->add_option("-p,--prompt", options->prompt,
                   "The prompt; - is standard input, as without -p and -f")
      ->type_name("TEXT");
  verb->add_option("-f,--file", options->file, "Read the prompt from a file")->type_name("PATH");
  verb->add_flag("--chat", options->chat, "Apply the model's chat template");
  verb->add_option("--system", options->system, "System message; needs --chat")->type_name("TEXT");
  verb->add_option("--tools", options->tools,
                   "Tools that the template shows the model, a JSON array; needs --chat")
      ->type_name("PATH");
  verb->add_option("-n,--max-tokens", options->max_tokens, "New tokens at most")
      ->capture_default_str()
      ->check(whole_number(1, kMaxCount))
      ->type_name("N");
  add_sampling_options(*verb, options->sampling);
  verb->add_option("--stop", options->stops, "End before this text; up to 4 times")
      ->type_name("TEXT")
      ->expected(1)
      ->take_all();
  verb->add_option("--ctx", options->context,
                   "Tokens of context (default: what prompt and answer need)")
      ->check(whole_number(2, kMaxCount))
      ->type_name("N");
  add_model_options(*verb, options->model);
  verb->add_flag("--ignore-eos", options->ignore_eos, "Go on past the end-of-answer token");
  verb->add_flag("--json", options->json, "Print one JSON document at the end");
  verb->add_flag("--verbose", options->verbose,
                 "Print the timing line even when not on a terminal");
  verb->footer(
      "The first Ctrl-C ends the answer and keeps the text, the second ends the program.\n"
      "Examples:\n  tandem run -p \"The capital of France is\" -n 16\n"
      "  tandem run model.gguf --chat -f question.txt --temperature 0.7 --seed 3\n"
      "  git diff | tandem run --chat --system \"Summarise this change.\" --json");
  verb->callback([options, &action] { action = [options] { return run(*options); }; });
}

}  // namespace tandem
