// tandem chat: a conversation by the model's own template.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <optional>

#include "base/clock.h"
#include "base/error.h"
#include "base/json.h"
#include "cli/chat_prompt.h"
#include "cli/message_reader.h"
#include "cli/model_options.h"
#include "cli/model_path.h"
#include "cli/terminal.h"
#include "cli/verbs.h"
#include "runtime/engine.h"
#include "study/task.h"
#include "text/detokenizer.h"

namespace tandem {
namespace {

constexpr uint64_t kMaxConversationBytes = 64u << 20;
constexpr const char* kCommands =
    "  /system TEXT  start over with this system message (none without TEXT)\n"
    "  /clear        start over with the same system message\n"
    "  /regen        answer the last message again\n"
    "  /save FILE    write the conversation as JSON\n"
    "  /load FILE    go on with a saved conversation\n"
    "  /help         this list\n"
    "  /quit         end; so does Ctrl-D, and Ctrl-C twice\n"
    "A message of several lines stands between two lines of \"\"\", or its lines end with \\.\n";

struct ChatOptions {
  ModelOptions model;
  std::string system;
  std::string tools;  // a file
  int64_t max_tokens = 1024;
  SamplingParams sampling;
  int64_t context = 0;  // 0: the model's, at most 8192
  bool verbose = false;
};

void say(const std::string& line) { write_stderr(line + "\n"); }

class Chat {
 public:
  Chat(const ChatOptions& options, const Checkpoint& checkpoint, const Model& model,
       const Tokenizer& tokenizer, const ChatPrompt& prompt)
      : options_(options),
        tokenizer_(tokenizer),
        prompt_(prompt),
        context_(options.context > 0 ? options.context
                                     : std::min<int64_t>(checkpoint.config.max_context, 8192)),
        engine_(model, engine_options()) {
    begin(options.system);
  }

  void ask(const std::string& message) {
    if (message.find_first_not_of(" \t\n") == std::string::npos) return;
    messages_.push_back({"user", message});
    answer();
  }

  // "/name argument"; false when it ends the conversation. What is wrong with it is said.
  bool obey(const std::string& line) {
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
    engine.kv_type = kv_type_of(options_.model.kv);
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
    } else if (command == "/clear") {
      const bool has_system = !messages_.empty() && messages_.front().role == "system";
      begin(has_system ? std::string(messages_.front().content) : "");
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

  // Answers the last message; one that cannot be answered is taken back.
  void answer() {
    try {
      Request request;
      request.id = ++last_id_;
      request.prompt = prompt_.encode(messages_);
      request.max_tokens = options_.max_tokens;
      request.sampling = options_.sampling;
      request.sampling.seed += num_regenerated_;
      request.stop_tokens = tokenizer_.stop_ids();
      request.keep = true;
      request.continues = answered_id_;
      const auto num_prompt = std::ssize(request.prompt);
      if (num_prompt >= context_) {
        fail(ErrorKind::usage,
             "the context is full: the conversation is {} tokens, {} fit; the message is taken "
             "back, /clear starts over",
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

  struct Turn {
    int64_t num_prompt = 0, num_reused = 0, num_new = 0;  // tokens
    int64_t first_ns = 0, last_ns = 0;                    // of the answer's tokens
    FinishReason finish = FinishReason::none;
  };

  // Runs the engine until the answer ends; an interrupt ends it and keeps its text.
  void stream(int64_t num_prompt) {
    const InterruptGuard guard;
    Detokenizer detokenizer(tokenizer_);
    std::string text;
    Turn turn;
    turn.num_prompt = num_prompt;
    const auto give = [&](const std::string& piece) {
      text += piece;
      if (!piece.empty()) write_stdout(piece);
    };
    std::optional<TokenEvent> event;  // one sequence: at most one event a step
    while (turn.finish == FinishReason::none &&
           engine_.step([&](const TokenEvent& given) { event = given; })) {
      if (InterruptGuard::interrupted()) engine_.cancel(last_id_);
      if (!event) continue;
      turn.finish = event->finish;
      if (turn.finish != FinishReason::cancelled) {
        turn.last_ns = now_ns();
        if (turn.first_ns == 0) turn.first_ns = turn.last_ns;
        turn.num_reused = event->num_reused;
      }
      if (event->token >= 0) {
        ++turn.num_new;
        give(detokenizer.push(event->token));
      }
      event.reset();
    }
    give(detokenizer.finish());
    answered_id_ = last_id_;
    write_stdout("\n");
    if (turn.finish == FinishReason::cancelled && turn.num_new == 0) {
      messages_.pop_back();
      say("stopped before the answer began; the message is taken back");
      return;
    }
    messages_.push_back({"assistant", text});
    report(turn);
  }

  void report(const Turn& turn) const {
    if (turn.finish == FinishReason::context_full) {
      say(fmt::format("the context is full: the answer ends at token {}; /clear starts over",
                      context_));
    } else if (turn.finish == FinishReason::max_tokens) {
      say(fmt::format("the answer ends at --max-tokens {}", options_.max_tokens));
    }
    if (!options_.verbose && !stderr_is_terminal()) return;
    const double seconds = static_cast<double>(turn.last_ns - turn.first_ns) * 1e-9;
    const double rate = turn.num_new > 1 ? static_cast<double>(turn.num_new - 1) / seconds : 0;
    const int64_t fill = turn.num_prompt + turn.num_new;
    say(fmt::format(
        "[context {}/{} tokens ({} %), {} of {} prompt tokens computed, {} new at "
        "{:.1f} tok/s{}]",
        fill, context_, 100 * fill / context_, turn.num_prompt - turn.num_reused, turn.num_prompt,
        turn.num_new, rate, turn.finish == FinishReason::cancelled ? ", stopped" : ""));
  }

  const ChatOptions& options_;
  const Tokenizer& tokenizer_;
  const ChatPrompt& prompt_;
  int64_t context_;
  Engine engine_;
  std::vector<ChatMessage> messages_;
  uint64_t last_id_ = 0;
  std::optional<uint64_t> answered_id_;  // whose cache the engine keeps
  uint64_t num_regenerated_ = 0;         // moves the seed on, so that a sampled answer differs
};

// Reads and answers until the conversation ends; the exit code.
int converse(Chat& conversation, bool on_terminal) {
  MessageReader reader(on_terminal);
  if (on_terminal) say("/help lists the commands; Ctrl-C stops an answer");
  bool warned = false;  // of a second Ctrl-C
  std::optional<InterruptGuard> always;  // no Ctrl-C finds a moment in which nothing waits for it
  if (on_terminal) always.emplace();
  for (;;) {
    std::string message;
    MessageReader::Event event;
    {
      std::optional<InterruptGuard> guard;
      if (on_terminal) guard.emplace();
      event = reader.next(message);
    }
    switch (event) {
      case MessageReader::Event::end:
        if (on_terminal) write_stderr("\n");
        return 0;
      case MessageReader::Event::interrupted:
        if (warned) return write_stderr("\n"), kExitInterrupted;
        warned = true;
        say("\nCtrl-C again ends the program; so do Ctrl-D and /quit");
        break;
      case MessageReader::Event::too_long:
        warned = false;
        say(message);
        break;
      case MessageReader::Event::message:
        warned = false;
        conversation.ask(message);
        break;
      case MessageReader::Event::command:
        warned = false;
        if (!conversation.obey(message)) return 0;
        break;
    }
  }
}

int chat(const ChatOptions& options) {
  check_sampling(options.sampling);
  const std::string isa = chosen_isa(options.model.isa);
  const int threads = chosen_threads(options.model.threads);
  const std::filesystem::path path = resolve_model_path(options.model.model);
  Json tools = options.tools.empty() ? Json() : read_tools(options.tools);
  ThreadPool pool(threads);
  const Checkpoint checkpoint = load_checkpoint(path);
  for (const std::string& warning : checkpoint.warnings) say("tandem: warning: " + warning);
  const Tokenizer tokenizer(checkpoint.tokenizer);
  const ChatPrompt prompt(checkpoint, tokenizer, std::move(tools), "use tandem run");
  // Tools that the template ignores are told now and not at the first message.
  if (!options.tools.empty()) prompt.encode({{"user", "Hi"}});
  const Model model(checkpoint, pool, isa, options.model.kernels.require_sparse);
  explain_kernels(model, options.model.kernels);
  Chat conversation(options, checkpoint, model, tokenizer, prompt);
  return converse(conversation, stdin_is_terminal() && stderr_is_terminal());
}

}  // namespace

void add_chat(CLI::App& app, Action& action) {
  const auto options = std::make_shared<ChatOptions>();
  CLI::App* verb = app.add_subcommand("chat", "Talk with a model");
  verb->add_option("--system", options->system, "System message")->type_name("TEXT");
  verb->add_option("--tools", options->tools,
                   "Tools that the template shows the model, a JSON array")
      ->type_name("PATH");
  verb->add_option("-n,--max-tokens", options->max_tokens, "New tokens of an answer at most")
      ->capture_default_str()
      ->check(whole_number(1, kMaxCount))
      ->type_name("N");
  add_sampling_options(*verb, options->sampling);
  verb->add_option("--ctx", options->context, "Tokens of context (the model's, at most 8192)")
      ->check(whole_number(2, kMaxCount))
      ->type_name("N");
  add_model_options(*verb, options->model);
  verb->add_flag("--verbose", options->verbose, "Print fill and speed even when not on a terminal");
  verb->footer(std::string("In it:\n") + kCommands +
               "Examples:\n  tandem chat --system \"Answer in one sentence.\"\n"
               "  printf 'Hi\\nAnd in French?\\n' | tandem chat model.gguf");
  verb->callback([options, &action] { action = [options] { return chat(*options); }; });
}

}  // namespace tandem
