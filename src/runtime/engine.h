// The engine: schedule -> forward -> sample -> commit. One thread owns it.
// Only what every model and every request needs lives here.
#pragma once

#include <functional>
#include <memory>
#include <span>

#include "model/model.h"
#include "runtime/request.h"

namespace tandem {

struct EngineOptions {
  KvType kv_type = KvType::bf16;
  int64_t max_context = 0;        // tokens a sequence may reach; 0: the model's own, at most 8192
  int64_t max_sequences = 8;      // running at once; more wait in a queue
  int64_t max_step_tokens = 512;  // of a step, prompts and answers; at least max_sequences
  int64_t kv_pages = 0;           // 0: enough for max_sequences of max_context (mapped lazily)
};

using TokenSink = std::function<void(const TokenEvent&)>;

class Engine {
 public:
  // The model must outlive the engine. Throws no_memory when the KV cache cannot fit.
  Engine(const Model& model, const EngineOptions& options);
  ~Engine();

  // Throws usage when the prompt is empty, holds an id outside the vocabulary, does not fit the
  // context (both numbers in the message) or a sampling parameter is out of range. An answer that
  // max_tokens would let grow past the context ends there, with context_full. The id must be
  // neither that of a request in the engine nor that of one whose cache is kept.
  void submit(Request request);
  // Ends the request before the next step, with its own event; nothing when it has finished
  // already.
  void cancel(uint64_t request_id);
  // Runs one step if there is work; false when idle. The sink may submit and cancel, and must not
  // throw. Throws system when a request's logits are NaN: that request is dropped, the others go
  // on.
  bool step(const TokenSink& sink);
  // Steps until idle.
  void run(const TokenSink& sink);

  struct Stats {
    int64_t running = 0, waiting = 0;
    int64_t kept = 0;  // ended, their cache kept; their pages are neither free nor lost
    int64_t pages_total = 0, pages_free = 0;
    uint64_t kv_bytes_used = 0;  // pages in use
    uint64_t workspace_bytes = 0;
  };
  Stats stats() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Logits of every position of one window, without sampling: for perplexity and divergence.
// Positions before `first` are computed but not given. sink(position, logits[V]) in order; the
// logits of position p predict token p + 1. Runs in segments with its own cache.
class Scorer {
 public:
  // Throws usage when max_window exceeds the model's context, no_memory when the cache does not
  // fit.
  Scorer(const Model& model, KvType kv_type, int64_t max_window);
  ~Scorer();
  using LogitSink = std::function<void(int64_t position, const float* logits)>;
  // At most max_window tokens: CHECKed. Throws usage on an id outside the vocabulary.
  void score(std::span<const int32_t> tokens, int64_t first, const LogitSink& sink);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace tandem
