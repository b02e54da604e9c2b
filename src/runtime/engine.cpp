// Only what every model and every request needs lives here.
#include "runtime/engine.h"

#include <algorithm>
#include <exception>
#include <map>
#include <optional>

#include "base/error.h"
#include "runtime/kv_store.h"
#include "runtime/sampler.h"
#include "runtime/scheduler.h"

namespace tandem {
namespace {

// Without a limit given, a model made for 128 Ki tokens would reserve gigabytes for each sequence.
constexpr int64_t kDefaultMaxContext = 8192;

int64_t pages_for(int64_t tokens) { return (tokens + kPageTokens - 1) / kPageTokens; }

EngineOptions resolve(EngineOptions options, const ModelConfig& config) {
  if (options.max_context == 0)
    options.max_context = std::min(config.max_context, kDefaultMaxContext);
  if (options.max_context < 2 || options.max_context > config.max_context) {
    fail(ErrorKind::usage,
         "context is {} tokens; expected 2 to {}, the most this model was made for",
         options.max_context, config.max_context);
  }
  if (options.max_sequences < 1 || options.max_step_tokens < options.max_sequences) {
    fail(ErrorKind::usage,
         "{} sequences in steps of {} tokens; expected at least one sequence and a "
         "token for each",
         options.max_sequences, options.max_step_tokens);
  }
  if (options.kv_pages == 0) {
    options.kv_pages = options.max_sequences * pages_for(options.max_context);
  }
  return options;
}

void check_tokens(std::span<const int32_t> tokens, int64_t vocab_size) {
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (tokens[i] < 0 || tokens[i] >= vocab_size) {
      fail(ErrorKind::usage, "token {} at position {}; expected ids from 0 to {}", tokens[i], i,
           vocab_size - 1);
    }
  }
}

struct Sequence {
  Sequence(Request request_, int64_t max_length_, bool fills_context_, int64_t vocab_size)
      : request(std::move(request_)),
        sampler(request.sampling, vocab_size, request.prompt),
        max_length(max_length_),
        fills_context(fills_context_),
        tokens(std::move(request.prompt)) {
    tokens.reserve(static_cast<size_t>(max_length));
  }

  Request request;
  Sampler sampler;
  int64_t max_length;           // prompt and answer
  bool fills_context;           // max_length is the context's, not the request's
  std::vector<int32_t> tokens;  // prompt and answer so far
  int64_t num_reused = -1;      // of the prompt, from another request's cache; -1: not begun
  bool cancelled = false;
};

// What is known of a request whose cache is kept.
struct Kept {
  std::vector<int32_t> tokens;  // prompt and answer
  int64_t cached = 0;           // of them, from the front, in the cache
};

}  // namespace

struct Engine::Impl {
  Impl(const Model& model_, const EngineOptions& options_)
      : model(model_),
        options(resolve(options_, model_.config())),
        store(model_.kv_layout(options.kv_type), options.kv_pages, model_.device()),
        scheduler({options.max_sequences, options.max_step_tokens, options.kv_pages, kPageTokens}),
        workspace(model_.make_workspace(options.max_step_tokens, options.max_sequences, options.kv_pages)),
        tokens(static_cast<size_t>(options.max_step_tokens)),
        positions(static_cast<size_t>(options.max_step_tokens)) {
    batch.tokens = tokens.data();
    batch.positions = positions.data();
    batch.sequences.reserve(static_cast<size_t>(options.max_sequences));
    batch.logit_rows.reserve(static_cast<size_t>(options.max_sequences));
  }

  void submit(Request request);
  bool drop_cancelled(const TokenSink& sink);
  void fill_batch(std::span<const ScheduledSlice> slices);
  std::span<const int32_t> greedy_tokens(std::span<const ScheduledSlice> slices);
  void sample(std::span<const ScheduledSlice> slices, const TokenSink& sink);
  FinishReason commit(Sequence& sequence, int32_t token) const;
  std::optional<Continuation> find_continuation(const Request& request) const;
  void finish(uint64_t id);
  void drop(uint64_t id) {
    scheduler.remove(id);
    sequences.erase(id);
  }

  const Model& model;
  const EngineOptions options;
  KvStore store;
  Scheduler scheduler;
  Model::WorkspacePtr workspace;
  std::map<uint64_t, Sequence> sequences;  // waiting and running
  std::map<uint64_t, Kept> kept;           // the scheduler's, and some that it has let go since
  int64_t num_cancelled = 0;               // of the sequences, marked and not yet dropped
  std::vector<int32_t> tokens, positions;  // [max_step_tokens]
  Batch batch;
};

void Engine::Impl::submit(Request request) {
  const int64_t num_prompt = static_cast<int64_t>(request.prompt.size());
  if (num_prompt == 0) fail(ErrorKind::usage, "the prompt is empty; expected at least one token");
  if (num_prompt >= options.max_context) {
    fail(ErrorKind::usage,
         "the prompt has {} tokens; a context of {} holds at most {} and an answer", num_prompt,
         options.max_context, options.max_context - 1);
  }
  if (request.max_tokens < 1) {
    fail(ErrorKind::usage, "max tokens is {}; expected 1 or more", request.max_tokens);
  }
  check_tokens(request.prompt, model.config().vocab_size);
  check_sampling(request.sampling);
  const int64_t room = options.max_context - num_prompt;
  const bool fills_context = request.max_tokens > room;
  const int64_t max_length = num_prompt + std::min(request.max_tokens, room);
  if (scheduler.pages_needed(max_length) > options.kv_pages) {
    fail(ErrorKind::usage, "prompt and answer of {} tokens need {} pages of KV cache; there are {}",
         max_length, scheduler.pages_needed(max_length), options.kv_pages);
  }
  const uint64_t id = request.id;
  if (sequences.contains(id) || scheduler.is_kept(id)) {
    fail(ErrorKind::usage, "request {} is already in the engine", id);
  }
  const std::optional<Continuation> continuation = find_continuation(request);
  sequences.try_emplace(id, std::move(request), max_length, fills_context,
                        model.config().vocab_size);
  scheduler.submit(id, num_prompt, max_length, continuation);
}

// The tokens that the prompt and the request it continues begin with, as far as they are in the
// cache; the prompt's last is computed in any case, for its logits.
std::optional<Continuation> Engine::Impl::find_continuation(const Request& request) const {
  if (!request.continues || !scheduler.is_kept(*request.continues)) return std::nullopt;
  const Kept& before = kept.at(*request.continues);
  const ModelConfig& config = model.config();
  const size_t longer = std::max(before.tokens.size(), request.prompt.size());
  if (config.rope_scaling == RopeScaling::dynamic &&
      static_cast<int64_t>(longer) > config.rope_original_context) {
    return std::nullopt;  // its keys turn with the length of the whole prompt
  }
  const auto most = std::min<int64_t>(before.cached, std::ssize(request.prompt) - 1);
  const auto differs =
      std::mismatch(before.tokens.begin(), before.tokens.begin() + most, request.prompt.begin());
  return Continuation{*request.continues, differs.first - before.tokens.begin()};
}

// Takes an ended request out, and keeps its cache if it asked for that.
void Engine::Impl::finish(uint64_t id) {
  Sequence& sequence = sequences.at(id);
  if (!sequence.request.keep) return drop(id);
  std::erase_if(kept, [&](const auto& entry) { return !scheduler.is_kept(entry.first); });
  const int64_t cached = scheduler.keep(id);
  if (cached > 0) kept[id] = {std::move(sequence.tokens), cached};
  sequences.erase(id);
}

bool Engine::Impl::drop_cancelled(const TokenSink& sink) {
  if (num_cancelled == 0) return false;
  num_cancelled = 0;
  for (auto it = sequences.begin(); it != sequences.end();) {
    const uint64_t id = it->first;
    const bool cancelled = (it++)->second.cancelled;
    if (!cancelled) continue;
    finish(id);
    sink({id, -1, FinishReason::cancelled, 0});
  }
  return true;
}

void Engine::Impl::fill_batch(std::span<const ScheduledSlice> slices) {
  batch.T = 0;
  batch.sequences.clear();
  batch.logit_rows.clear();
  for (const ScheduledSlice& slice : slices) {
    Sequence& sequence = sequences.at(slice.id);
    if (sequence.num_reused < 0) sequence.num_reused = slice.first_position;
    const int64_t first_row = batch.T;
    for (int64_t i = 0; i < slice.num_tokens; ++i) {
      tokens[first_row + i] = sequence.tokens[slice.first_position + i];
      positions[first_row + i] = static_cast<int32_t>(slice.first_position + i);
    }
    batch.T += slice.num_tokens;
    batch.sequences.push_back({first_row, slice.num_tokens, slice.first_position + slice.num_tokens,
                               slice.pages.data(), static_cast<int64_t>(sequence.tokens.size())});
    if (slice.samples) batch.logit_rows.push_back(static_cast<int32_t>(batch.T - 1));
  }
}

// Adds the token unless it ends the answer; why the request finished, if it did.
FinishReason Engine::Impl::commit(Sequence& sequence, int32_t token) const {
  if (std::ranges::find(sequence.request.stop_tokens, token) !=
      sequence.request.stop_tokens.end()) {
    return FinishReason::stop_token;
  }
  sequence.tokens.push_back(token);
  if (static_cast<int64_t>(sequence.tokens.size()) < sequence.max_length) return FinishReason::none;
  return sequence.fills_context ? FinishReason::context_full : FinishReason::max_tokens;
}

// The step's tokens when a device has chosen all of them; empty when the host must see the logits, be
// it to draw or to say what is wrong with them.
std::span<const int32_t> Engine::Impl::greedy_tokens(std::span<const ScheduledSlice> slices) {
  if (model.device() == nullptr) return {};
  for (const ScheduledSlice& slice : slices) {
    if (slice.samples && !sequences.at(slice.id).sampler.is_greedy()) return {};
  }
  const auto ids = model.greedy_tokens(*workspace, static_cast<int64_t>(batch.logit_rows.size()));
  return std::ranges::find(ids, -1) == ids.end() ? ids : std::span<const int32_t>();
}

void Engine::Impl::sample(std::span<const ScheduledSlice> slices, const TokenSink& sink) {
  if (batch.logit_rows.empty()) return;
  const size_t V = static_cast<size_t>(model.config().vocab_size);
  const auto greedy = greedy_tokens(slices);
  const float* logits =
      greedy.empty() ? model.logits(*workspace, static_cast<int64_t>(batch.logit_rows.size())) : nullptr;
  size_t row = 0;
  // One request's bad logits must not leave the others without the token of this step.
  std::exception_ptr failure;
  for (const ScheduledSlice& slice : slices) {
    if (!slice.samples) continue;
    Sequence& sequence = sequences.at(slice.id);
    const size_t index = row++;
    int32_t token = -1;
    try {
      token = greedy.empty() ? sequence.sampler.sample({logits + index * V, V}) : greedy[index];
    } catch (const Error& error) {
      const std::string message = fmt::format("request {}: {}", slice.id, error.what());
      failure = std::make_exception_ptr(Error(error.kind, message));
      num_cancelled -= sequence.cancelled;
      drop(slice.id);
      continue;
    }
    const int64_t num_reused = sequence.num_reused;
    const FinishReason reason = commit(sequence, token);
    if (reason == FinishReason::none) {
      scheduler.append(slice.id);
    } else {
      num_cancelled -= sequence.cancelled;
      finish(slice.id);
    }
    sink({slice.id, reason == FinishReason::stop_token ? -1 : token, reason, num_reused});
  }
  if (failure) std::rethrow_exception(failure);
}

Engine::Engine(const Model& model, const EngineOptions& options)
    : impl_(std::make_unique<Impl>(model, options)) {}

Engine::~Engine() = default;

void Engine::submit(Request request) { impl_->submit(std::move(request)); }

void Engine::cancel(uint64_t request_id) {
  const auto it = impl_->sequences.find(request_id);
  if (it == impl_->sequences.end() || it->second.cancelled) return;
  it->second.cancelled = true;
  ++impl_->num_cancelled;
}

bool Engine::step(const TokenSink& sink) {
  const bool dropped = impl_->drop_cancelled(sink);
  const std::span<const ScheduledSlice> slices = impl_->scheduler.plan();
  if (slices.empty()) return dropped;
  impl_->fill_batch(slices);
  impl_->model.forward(impl_->batch, impl_->store.cache(), *impl_->workspace);
  impl_->scheduler.advance();
  impl_->sample(slices, sink);
  return true;
}

void Engine::run(const TokenSink& sink) {
  while (step(sink)) {
  }
}

Engine::Stats Engine::stats() const {
  const KvPages& pages = impl_->scheduler.pages();
  Stats stats;
  stats.running = impl_->scheduler.num_running();
  stats.waiting = impl_->scheduler.num_waiting();
  stats.kept = impl_->scheduler.num_kept();
  stats.pages_total = pages.total();
  stats.pages_free = pages.num_free();
  stats.kv_bytes_used = static_cast<uint64_t>((pages.total() - pages.num_free()) *
                                              impl_->store.layout().page_bytes());
  stats.workspace_bytes = Model::workspace_bytes(*impl_->workspace);
  return stats;
}

}  // namespace tandem
