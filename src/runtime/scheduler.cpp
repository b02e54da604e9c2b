#include "runtime/scheduler.h"

#include <algorithm>

#include "base/error.h"

namespace tandem {

Scheduler::Scheduler(const SchedulerLimits& limits) : limits_(limits), pages_(limits.num_pages) {
  CHECK(limits.max_sequences > 0 && limits.max_step_tokens >= limits.max_sequences,
        "max_sequences {} max_step_tokens {}", limits.max_sequences, limits.max_step_tokens);
  CHECK(limits.page_tokens > 0, "page_tokens {}", limits.page_tokens);
  running_.reserve(static_cast<size_t>(limits.max_sequences));
  slices_.reserve(static_cast<size_t>(limits.max_sequences));
}

int64_t Scheduler::pages_needed(int64_t tokens) const {
  return (tokens - 1 + limits_.page_tokens - 1) / limits_.page_tokens;
}

void Scheduler::submit(uint64_t id, int64_t num_prompt, int64_t max_length,
                       const std::optional<Continuation>& continuation) {
  CHECK(0 < num_prompt && num_prompt < max_length, "num_prompt {} max_length {}", num_prompt,
        max_length);
  CHECK(pages_needed(max_length) <= limits_.num_pages, "max_length {} num_pages {}", max_length,
        limits_.num_pages);
  Sequence sequence;
  sequence.id = id;
  sequence.max_length = max_length;
  sequence.length = num_prompt;
  if (continuation) {
    const auto kept = std::ranges::find(kept_, continuation->id, &Sequence::id);
    CHECK(kept != kept_.end() && continuation->num_tokens <= kept->cached &&
              continuation->num_tokens < num_prompt,
          "{} of {} tokens continue {}", continuation->num_tokens, num_prompt, continuation->id);
    sequence.continuation = continuation;
  }
  sequence.pages.reserve(static_cast<size_t>(pages_needed(max_length)));
  waiting_.push_back(std::move(sequence));
}

// All pages that the sequence can need: first those it takes over, then free ones, then those of
// kept sequences. False, with nothing changed, when running sequences hold too many.
bool Scheduler::take_pages(Sequence& sequence) {
  const int64_t needed = pages_needed(sequence.max_length);
  int64_t obtainable = pages_.num_free();
  for (const Sequence& kept : kept_) obtainable += static_cast<int64_t>(kept.pages.size());
  if (obtainable < needed) return false;
  if (sequence.continuation) {
    const auto kept = std::ranges::find(kept_, sequence.continuation->id, &Sequence::id);
    if (kept != kept_.end()) {
      sequence.cached = sequence.continuation->num_tokens;
      const int64_t shared = (sequence.cached + limits_.page_tokens - 1) / limits_.page_tokens;
      sequence.pages.assign(kept->pages.begin(), kept->pages.begin() + shared);
      pages_.give_back(std::span(kept->pages).subspan(static_cast<size_t>(shared)));
      kept_.erase(kept);
    }
  }
  const int64_t missing = needed - static_cast<int64_t>(sequence.pages.size());
  while (pages_.num_free() < missing) {
    pages_.give_back(kept_.front().pages);
    kept_.erase(kept_.begin());
  }
  return pages_.take(missing, sequence.pages);
}

void Scheduler::admit() {
  // Strictly in order: passing over a large request for a small one could starve it.
  while (!waiting_.empty() && num_running() < limits_.max_sequences) {
    Sequence& next = waiting_.front();
    if (!take_pages(next)) return;
    running_.push_back(std::move(next));
    waiting_.pop_front();
  }
}

void Scheduler::plan_slice(const Sequence& sequence, int64_t num_tokens) {
  const bool samples = sequence.cached + num_tokens == sequence.length;
  slices_.push_back({sequence.id, sequence.cached, num_tokens, samples, sequence.pages});
}

std::span<const ScheduledSlice> Scheduler::plan() {
  admit();
  slices_.clear();
  int64_t budget_tokens = limits_.max_step_tokens;
  for (const Sequence& sequence : running_) {
    if (sequence.length - sequence.cached != 1) continue;
    plan_slice(sequence, 1);
    --budget_tokens;
  }
  for (const Sequence& sequence : running_) {
    const int64_t pending = sequence.length - sequence.cached;
    CHECK(pending > 0, "sequence {}: {} tokens, none appended since its step", sequence.id,
          sequence.length);
    if (pending == 1 || budget_tokens == 0) continue;
    const int64_t num_tokens = std::min(pending, budget_tokens);
    plan_slice(sequence, num_tokens);
    budget_tokens -= num_tokens;
  }
  return slices_;
}

void Scheduler::advance() {
  for (const ScheduledSlice& slice : slices_) {
    const auto it = std::ranges::find(running_, slice.id, &Sequence::id);
    CHECK(it != running_.end(), "sequence {} left during its step", slice.id);
    it->cached += slice.num_tokens;
  }
}

void Scheduler::append(uint64_t id) {
  const auto it = std::ranges::find(running_, id, &Sequence::id);
  CHECK(it != running_.end(), "sequence {} is not running", id);
  CHECK(it->length < it->max_length, "sequence {} is full at {} tokens", id, it->length);
  ++it->length;
}

void Scheduler::remove(uint64_t id) {
  const auto running = std::ranges::find(running_, id, &Sequence::id);
  if (running != running_.end()) {
    pages_.give_back(running->pages);
    running_.erase(running);
    return;
  }
  const auto waiting = std::ranges::find(waiting_, id, &Sequence::id);
  CHECK(waiting != waiting_.end(), "sequence {} is neither running nor waiting", id);
  waiting_.erase(waiting);
}

int64_t Scheduler::keep(uint64_t id) {
  const auto running = std::ranges::find(running_, id, &Sequence::id);
  if (running == running_.end() || running->cached == 0) {
    remove(id);
    return 0;
  }
  const auto used =
      static_cast<size_t>((running->cached + limits_.page_tokens - 1) / limits_.page_tokens);
  pages_.give_back(std::span(running->pages).subspan(used));
  running->pages.resize(used);
  kept_.push_back(std::move(*running));
  running_.erase(running);
  return kept_.back().cached;
}

bool Scheduler::is_kept(uint64_t id) const {
  return std::ranges::find(kept_, id, &Sequence::id) != kept_.end();
}

}  // namespace tandem
