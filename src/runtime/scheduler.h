// Who runs in the next step, and how many tokens of it: pure host logic that knows lengths and
// pages, no tokens and no tensors. Only what every model and every request needs lives here.
//
// A sequence is admitted, first come first served, when a place is free and all the pages it can
// ever need are: from then on it always finishes, and its page table never moves. A step gives one
// token to every sequence with one token pending (decoding), then fills up to max_step_tokens with
// pieces of prompts, oldest first.
//
// A sequence that ends may be kept: the pages of its computed tokens stay until a sequence that
// continues it is admitted and takes them over, or until an admission needs them, oldest first.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <span>
#include <vector>

#include "runtime/kv_pages.h"

namespace tandem {

struct SchedulerLimits {
  int64_t max_sequences = 8;      // running at once
  int64_t max_step_tokens = 512;  // at least max_sequences
  int64_t num_pages = 0;
  int64_t page_tokens = 64;
};

// What one sequence does in a step: tokens [first_position, first_position + num_tokens).
struct ScheduledSlice {
  uint64_t id = 0;
  int64_t first_position = 0;
  int64_t num_tokens = 0;
  bool samples = false;            // it ends with the last known token: a new one is to be sampled
  std::span<const int32_t> pages;  // of the whole sequence, valid until it is removed
};

// The first num_tokens of a sequence are those of the kept sequence `id`.
struct Continuation {
  uint64_t id = 0;
  int64_t num_tokens = 0;
};

class Scheduler {
 public:
  explicit Scheduler(const SchedulerLimits& limits);

  // Pages that a sequence reaching `tokens` tokens needs. The last token is never computed.
  int64_t pages_needed(int64_t tokens) const;
  // Queues a sequence of num_prompt tokens that reaches at most max_length. 0 < num_prompt <
  // max_length, and pages_needed(max_length) <= num_pages: CHECKed. Of a continuation num_tokens <
  // num_prompt, at most what is computed of a kept sequence: CHECKed. When that one is gone by the
  // time of admission, everything is computed.
  void submit(uint64_t id, int64_t num_prompt, int64_t max_length,
              const std::optional<Continuation>& continuation = {});
  // Admits what fits and plans a step; empty when there is nothing to run. The slices stay valid
  // until the next plan().
  std::span<const ScheduledSlice> plan();
  // The planned step has run: its tokens are in the cache.
  void advance();
  // A token was sampled: the sequence is one longer.
  void append(uint64_t id);
  // Takes the sequence out, waiting or running, and frees its pages.
  void remove(uint64_t id);
  // As remove, but keeps the pages of what is computed; returns these tokens. 0 when there are
  // none: nothing is kept then.
  int64_t keep(uint64_t id);
  bool is_kept(uint64_t id) const;

  int64_t num_running() const { return static_cast<int64_t>(running_.size()); }
  int64_t num_waiting() const { return static_cast<int64_t>(waiting_.size()); }
  int64_t num_kept() const { return static_cast<int64_t>(kept_.size()); }
  const KvPages& pages() const { return pages_; }

 private:
  struct Sequence {
    uint64_t id = 0;
    int64_t max_length = 0;
    int64_t length = 0;          // tokens known
    int64_t cached = 0;          // tokens computed
    std::vector<int32_t> pages;  // all it can need, from admission on
    std::optional<Continuation> continuation;
  };
  void admit();
  bool take_pages(Sequence& sequence);
  void plan_slice(const Sequence& sequence, int64_t num_tokens);

  SchedulerLimits limits_;
  KvPages pages_;
  std::deque<Sequence> waiting_;
  std::vector<Sequence> running_;  // oldest first
  std::vector<Sequence> kept_;     // oldest first; as many pages as their computed tokens fill
  std::vector<ScheduledSlice> slices_;
};

}  // namespace tandem
