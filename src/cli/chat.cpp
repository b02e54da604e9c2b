// tandem chat: a conversation by the model's own template, one line a message.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <iostream>
#include <optional>

#include "base/clock.h"
#include "base/cpu.h"
#include "base/error.h"
#include "base/json.h"
#include "cli/model_path.h"
#include "cli/terminal.h"
#include "cli/verbs.h"
#include "kernels/table.h"
#include "runtime/engine.h"
#include "text/chat_template.h"
#include "text/detokenizer.h"

namespace tandem {
namespace {

constexpr uint64_t kMaxConversationBytes = 64u << 20;
constexpr const char* kCommands =
    "/system TEXT  start over with this system message (none without TEXT)\n"
    "/regen        answer the last message again\n"
    "/save FILE    write the conversation as JSON\n"
    "/load FILE    go on with a saved conversation\n"
    "/help         this list\n"
    "/quit         end; so does the end of input\n";

struct ChatOptions {
  std::string model, system;
  int64_t max_tokens = 1024;
  SamplingParams sampling;
  int64_t context = 0;  // 0: the model's, at most 8192
  std::string kv = "bf16", isa;
  int threads = 0;
};

void say(const std::string& line) { write_stderr(line + "\n"); }

class Chat {
 public:
  Chat(const ChatOptions& options, const Checkpoint& checkpoint, const Model& model)
      : options_(options),
        chat_template_(checkpoint.tokenizer.chat_template),
        tokenizer_(checkpoint.tokenizer),
        context_(options.context > 0 ? options.context
                                     : std::min<int64_t>(checkpoint.config.max_context, 8192)),
        engine_(model, engine_options()) {
    begin(options.system);
  }

  // False at the end of the conversation.
  bool handle(const std::string& line) {
    if (line.empty()) return true;
    if (line.front() != '/') {
      messages_.push_back({"user", line});
      answer();
      return true;
    }
    const size_t space = std::min(line.find(' '), line.size());
    const std::string command = line.substr(0, space);
    const std::string argument = line.substr(std::min(space + 1, line.size()));
    if (command == "/quit") return false;
    try {
      run_command(command, argument);
    } catch (const Error& error) {
      say(error.what());
    }
    return true;
  }

 private:
  EngineOptions engine_options() const {
    EngineOptions engine;
    engine.kv_type = options_.kv == "int8" ? KvType::int8 : KvType::bf16;
    engine.max_sequences = 1;
    engine.max_context = context_;
    return engine;
  }

  void begin(const std::string& system) {
    messages_.clear();
    if (!system.empty()) messages_.push_back({"system", system});
  }

  void run_command(const std::string& command, const std::string& argument) {
    if (command == "/system") {
      begin(argument);
      say("a new conversation");
    } else if (command == "/regen") {
      if (!messages_.empty() && messages_.back().role == "assistant") messages_.pop_back();
      if (messages_.empty() || messages_.back().role != "user") {
        fail(ErrorKind::usage, "/regen: nothing to answer yet");
      }
      ++num_regenerated_;
      answer();
    } else if (command == "/save") {
      save(argument);
    } else if (command == "/load") {
      load(argument);
    } else if (command == "/help") {
      write_stderr(kCommands);
    } else {
      fail(ErrorKind::usage, "unknown command {}; /help lists them", quote(command));
    }
  }

  void save(const std::string& path) const {
    if (path.empty()) fail(ErrorKind::usage, "/save: no file named");
    Json list = Json::array();
    for (const auto& [role, content] : messages_) {
      list.push_back({{"role", role}, {"content", content}});
    }
    write_file_atomic(path, dump_json({{"schema", "tandem.chat/1"}, {"messages", list}}, 2) + "\n");
    say("saved " + std::to_string(messages_.size()) + " messages");
  }

  void load(const std::string& path) {
    if (path.empty()) fail(ErrorKind::usage, "/load: no file named");
    const Json document = parse_json(read_text_file(path, kMaxConversationBytes), path);
    std::vector<ChatMessage> messages;
    try {
      for (const Json& message : document.at("messages")) {
        messages.push_back(
            {message.at("role").get<std::string>(), message.at("content").get<std::string>()});
      }
    } catch (const Json::exception& error) {
      fail(ErrorKind::bad_file, "{}: {}", quote(path, 400), error.what());
    }
    messages_ = std::move(messages);
    say("loaded " + std::to_string(messages_.size()) + " messages");
  }

  std::vector<int32_t> prompt_tokens() const {
    const auto name = [&](int32_t id) {
      return id < 0 ? std::string() : tokenizer_.token_name(id);
    };
    return tokenizer_.encode(chat_template_.render(messages_, true, name(tokenizer_.bos_id()),
                                                   name(tokenizer_.eos_id())));
  }

  // Answers the last message; one that cannot be answered is taken back.
  void answer() {
    try {
      Request request;
      request.id = ++last_id_;
      request.prompt = prompt_tokens();
      request.max_tokens = options_.max_tokens;
      request.sampling = options_.sampling;
      request.sampling.seed += num_regenerated_;
      request.stop_tokens = tokenizer_.stop_ids();
      const auto num_prompt = static_cast<int64_t>(request.prompt.size());
      if (num_prompt >= context_) {
        fail(ErrorKind::usage,
             "the context is full: the conversation is {} tokens, {} fit; the message is taken "
             "back, /system starts over",
             num_prompt, context_);
      }
      engine_.submit(std::move(request));
      stream(num_prompt);
    } catch (const Error& error) {
      if (error.kind != ErrorKind::usage) throw;
      messages_.pop_back();
      say(error.what());
    }
  }

  void stream(int64_t num_prompt) {
    const InterruptGuard guard;
    Detokenizer detokenizer(tokenizer_);
    std::string text;
    int64_t num_tokens = 0, first_ns = 0;
    FinishReason finish = FinishReason::none;
    const auto give = [&](const std::string& piece) {
      text += piece;
      if (!piece.empty()) write_stdout(piece);
    };
    std::optional<TokenEvent> event;  // one sequence: at most one event a step
    while (finish == FinishReason::none &&
           engine_.step([&](const TokenEvent& given) { event = given; })) {
      if (InterruptGuard::interrupted()) engine_.cancel(last_id_);
      if (!event) continue;
      if (first_ns == 0) first_ns = now_ns();
      if (event->token >= 0) {
        ++num_tokens;
        give(detokenizer.push(event->token));
      }
      finish = event->finish;
      event.reset();
    }
    give(detokenizer.finish());
    write_stdout("\n");
    messages_.push_back({"assistant", text});
    report(num_prompt + num_tokens, num_tokens, first_ns, finish);
  }

  void report(int64_t num_context, int64_t num_tokens, int64_t first_ns, FinishReason finish) {
    if (finish == FinishReason::context_full) {
      say(fmt::format("the context is full: the answer ends at token {}; /system starts over",
                      context_));
    } else if (finish == FinishReason::max_tokens) {
      say(fmt::format("the answer ends at --max-tokens {}", options_.max_tokens));
    }
    if (!stderr_is_terminal()) return;
    const double seconds = seconds_since(first_ns);
    const double rate = num_tokens > 1 ? static_cast<double>(num_tokens - 1) / seconds : 0;
    say(fmt::format("[context {}/{} tokens, {:.1f} tok/s{}]", num_context, context_, rate,
                    finish == FinishReason::cancelled ? ", stopped" : ""));
  }

  const ChatOptions& options_;
  ChatTemplate chat_template_;
  Tokenizer tokenizer_;
  int64_t context_;
  Engine engine_;
  std::vector<ChatMessage> messages_;
  uint64_t last_id_ = 0;
  uint64_t num_regenerated_ = 0;  // moves the seed on, so that a sampled answer differs
};

int chat(const ChatOptions& options) {
  check_sampling(options.sampling);
  const std::string isa = options.isa.empty() ? std::string(best_isa()) : options.isa;
  require_isa(isa);
  const std::filesystem::path path = resolve_model_path(options.model);
  ThreadPool pool(options.threads > 0 ? options.threads : usable_cpus());
  const Checkpoint checkpoint = load_checkpoint(path);
  if (checkpoint.tokenizer.chat_template.empty()) {
    fail(ErrorKind::usage, "{} has no chat template; use tandem run", checkpoint.path.string());
  }
  const Model model(checkpoint, pool, isa);
  Chat conversation(options, checkpoint, model);
  const bool asks = ::isatty(STDIN_FILENO) == 1 && stderr_is_terminal();
  if (asks) say("/help lists the commands; Ctrl-C stops an answer");
  std::string line;
  do {
    if (asks) write_stderr("> ");
    if (!std::getline(std::cin, line)) break;
    if (line.ends_with('\r')) line.pop_back();
  } while (conversation.handle(line));
  return 0;
}

}  // namespace

void add_chat(CLI::App& app, Action& action) {
  const auto options = std::make_shared<ChatOptions>();
  CLI::App* verb = app.add_subcommand("chat", "Talk with a model, one line a message");
  verb->add_option("MODEL", options->model,
                   "GGUF file or Hugging Face folder (default: the set-up's model)");
  verb->add_option("--system", options->system, "System message")->type_name("TEXT");
  verb->add_option("-n,--max-tokens", options->max_tokens, "New tokens of an answer at most")
      ->capture_default_str()
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 30).description(""))
      ->type_name("N");
  verb->add_option("--temperature", options->sampling.temperature, "0 is greedy")
      ->capture_default_str()
      ->type_name("X");
  verb->add_option("--top-p", options->sampling.top_p,
                   "Draw from the most likely that hold P; 1 is off")
      ->capture_default_str()
      ->type_name("P");
  verb->add_option("--seed", options->sampling.seed, "Repeats a sampled conversation")
      ->capture_default_str()
      ->check(CLI::NonNegativeNumber.description(""))
      ->type_name("N");
  verb->add_option("--ctx", options->context, "Tokens of context (the model's, at most 8192)")
      ->check(CLI::Range(int64_t{2}, int64_t{1} << 30).description(""))
      ->type_name("N");
  verb->add_option("--kv", options->kv, "Precision of the KV cache")
      ->capture_default_str()
      ->check(CLI::IsMember({"bf16", "int8"}));
  verb->add_option("--threads", options->threads, "Default: all CPUs this process may use")
      ->check(CLI::Range(1, 4096).description(""))
      ->type_name("N");
  verb->add_option("--isa", options->isa, "Instruction set: avx512, avx2 or ref")
      ->type_name("NAME");
  verb->footer(std::string("Each turn reads the whole conversation again. In it:\n") + kCommands +
               "Examples:\n  tandem chat --system \"Answer in one sentence.\"\n"
               "  printf 'Hi\\nAnd in French?\\n' | tandem chat model.gguf");
  verb->callback([options, &action] { action = [options] { return chat(*options); }; });
}

}  // namespace tandem
