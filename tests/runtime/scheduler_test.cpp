#include "runtime/scheduler.h"

#include <gtest/gtest.h>

#include <map>
#include <set>

#include "base/random.h"

namespace tandem {
namespace {

TEST(Scheduler, PrefillsInChunksThenDecodes) {
  Scheduler scheduler(
      {.max_sequences = 2, .max_step_tokens = 8, .num_pages = 4, .page_tokens = 16});
  scheduler.submit(7, 20, 23);
  const int64_t expected[][3] = {{0, 8, 0}, {8, 8, 0}, {16, 4, 1}, {20, 1, 1}, {21, 1, 1}};
  for (const auto& [first_position, num_tokens, samples] : expected) {
    const auto slices = scheduler.plan();
    ASSERT_EQ(slices.size(), 1u);
    EXPECT_EQ(slices[0].id, 7u);
    EXPECT_EQ(slices[0].first_position, first_position);
    EXPECT_EQ(slices[0].num_tokens, num_tokens);
    EXPECT_EQ(slices[0].samples, samples == 1);
    EXPECT_EQ(slices[0].pages.size(), 2u);  // 22 tokens are computed, the 23rd is not
    scheduler.advance();
    if (samples == 1) scheduler.append(7);
  }
  scheduler.remove(7);
  EXPECT_TRUE(scheduler.plan().empty());
  EXPECT_EQ(scheduler.pages().num_free(), 4);
}

TEST(Scheduler, DecodingGoesBeforePrefill) {
  Scheduler scheduler(
      {.max_sequences = 3, .max_step_tokens = 6, .num_pages = 9, .page_tokens = 16});
  scheduler.submit(1, 4, 40);
  scheduler.plan();
  scheduler.advance();
  scheduler.append(1);
  scheduler.submit(2, 30, 40);
  scheduler.submit(3, 1, 40);
  const auto slices = scheduler.plan();
  ASSERT_EQ(slices.size(), 3u);
  EXPECT_EQ(slices[0].id, 1u);
  EXPECT_EQ(slices[1].id, 3u);
  EXPECT_EQ(slices[2].id, 2u);
  EXPECT_EQ(slices[2].num_tokens, 4);
}

TEST(Scheduler, WaitsForPagesInOrder) {
  Scheduler scheduler(
      {.max_sequences = 8, .max_step_tokens = 64, .num_pages = 4, .page_tokens = 16});
  scheduler.submit(1, 10, 33);  // 2 pages
  scheduler.submit(2, 10, 65);  // 4 pages: must wait for 1
  scheduler.submit(3, 10, 12);  // 1 page: fits beside 1, but 2 came before
  EXPECT_EQ(scheduler.plan().size(), 1u);
  EXPECT_EQ(scheduler.num_waiting(), 2);
  scheduler.advance();
  scheduler.remove(1);
  const auto slices = scheduler.plan();
  ASSERT_EQ(slices.size(), 1u);
  EXPECT_EQ(slices[0].id, 2u);
}

// Runs the only sequence's prompt.
void prefill(Scheduler& scheduler) {
  while (!scheduler.plan().front().samples) scheduler.advance();
  scheduler.advance();
}

TEST(Scheduler, AContinuationTakesOverThePagesOfItsBeginning) {
  Scheduler scheduler(
      {.max_sequences = 2, .max_step_tokens = 64, .num_pages = 6, .page_tokens = 16});
  scheduler.submit(1, 40, 90);  // 6 pages
  const auto before = scheduler.plan().front().pages;
  const std::vector<int32_t> pages(before.begin(), before.end());
  scheduler.advance();
  EXPECT_EQ(scheduler.keep(1), 40);
  EXPECT_TRUE(scheduler.is_kept(1));
  EXPECT_EQ(scheduler.pages().num_free(), 3);
  scheduler.submit(2, 60, 90, Continuation{1, 20});
  const auto slices = scheduler.plan();
  ASSERT_EQ(slices.size(), 1u);
  EXPECT_EQ(slices[0].first_position, 20);
  EXPECT_EQ(slices[0].num_tokens, 40);
  ASSERT_EQ(slices[0].pages.size(), 6u);
  EXPECT_EQ(slices[0].pages[0], pages[0]);
  EXPECT_EQ(slices[0].pages[1], pages[1]);
  EXPECT_FALSE(scheduler.is_kept(1));
  scheduler.remove(2);
  EXPECT_EQ(scheduler.pages().num_free(), 6);
}

TEST(Scheduler, KeptPagesYieldToAnAdmissionOldestFirst) {
  Scheduler scheduler(
      {.max_sequences = 1, .max_step_tokens = 64, .num_pages = 4, .page_tokens = 16});
  for (const uint64_t id : {1, 2, 3}) {
    scheduler.submit(id, 10, 12);
    prefill(scheduler);
    EXPECT_EQ(scheduler.keep(id), 10);
  }
  scheduler.submit(4, 30, 33);  // 2 pages, 1 is free
  scheduler.submit(5, 20, 22, Continuation{1, 10});
  prefill(scheduler);
  EXPECT_FALSE(scheduler.is_kept(1));
  EXPECT_TRUE(scheduler.is_kept(2) && scheduler.is_kept(3));
  scheduler.remove(4);
  EXPECT_EQ(scheduler.plan().front().first_position, 0) << "what it continues is gone";
  scheduler.remove(5);
  EXPECT_EQ(scheduler.num_kept(), 2);
  EXPECT_EQ(scheduler.pages().num_free(), 2);
}

TEST(Scheduler, NothingIsKeptOfASequenceThatNeverRan) {
  Scheduler scheduler(
      {.max_sequences = 1, .max_step_tokens = 4, .num_pages = 2, .page_tokens = 16});
  scheduler.submit(1, 10, 12);
  EXPECT_EQ(scheduler.keep(1), 0);
  EXPECT_EQ(scheduler.num_kept() + scheduler.num_waiting(), 0);
}

TEST(SchedulerDeathTest, RefusesWhatCanNeverRun) {
  Scheduler scheduler(
      {.max_sequences = 1, .max_step_tokens = 4, .num_pages = 2, .page_tokens = 16});
  EXPECT_DEATH(scheduler.submit(1, 10, 34), "num_pages");
  EXPECT_DEATH(scheduler.submit(1, 10, 10), "num_prompt");
  EXPECT_DEATH(scheduler.remove(1), "neither");
  EXPECT_DEATH(scheduler.submit(1, 10, 12, Continuation{7, 3}), "continue 7");
}

// A stream of requests with random lengths, stops, cancellations and continuations, checked after
// every plan.
class RandomStream {
 public:
  explicit RandomStream(uint64_t seed)
      : random_(seed),
        steps_between_(seed % 2 == 0 ? 3 : 60),
        limits_{.max_sequences = 1 + static_cast<int64_t>(random_.below(8)),
                .max_step_tokens = 8 + static_cast<int64_t>(random_.below(40)),
                .num_pages = 4 + static_cast<int64_t>(random_.below(30)),
                .page_tokens = 16},
        scheduler_(limits_) {}

  void run(int num_requests) {
    int submitted = 0;
    for (int step = 0; submitted < num_requests || !live_.empty(); ++step) {
      ASSERT_LT(step, 100000) << "no progress";
      while (submitted < num_requests && random_.below(steps_between_) == 0) submit(submitted++);
      if (!live_.empty() && random_.below(50) == 0) {
        const auto it =
            std::next(live_.begin(), static_cast<std::ptrdiff_t>(random_.below(live_.size())));
        end(it->first);
      }
      run_step();
      if (::testing::Test::HasFatalFailure()) return;
    }
    EXPECT_EQ(scheduler_.num_running() + scheduler_.num_waiting(), 0);
    int64_t kept_pages = 0;
    for (const auto& [id, cached] : kept_) {
      if (scheduler_.is_kept(id)) kept_pages += (cached + 15) / limits_.page_tokens;
    }
    EXPECT_EQ(scheduler_.pages().num_free() + kept_pages, limits_.num_pages);
  }
  int num_continued() const { return num_continued_; }

 private:
  struct Live {
    int64_t num_prompt, max_length, length, cached;
    int64_t continued = 0;  // tokens that another sequence may have computed
  };

  void end(uint64_t id) {
    if (random_.below(2) == 0) {
      scheduler_.remove(id);
    } else if (const int64_t cached = scheduler_.keep(id); cached > 0) {
      ASSERT_EQ(cached, live_.at(id).cached);
      kept_[id] = cached;
    }
    live_.erase(id);
  }

  void submit(int id) {
    const int64_t most = limits_.num_pages * limits_.page_tokens + 1;
    const int64_t max_length =
        2 + static_cast<int64_t>(random_.below(static_cast<uint64_t>(most - 1)));
    const int64_t num_prompt =
        1 + static_cast<int64_t>(random_.below(static_cast<uint64_t>(max_length - 1)));
    std::optional<Continuation> continuation;
    std::erase_if(kept_, [&](const auto& entry) { return !scheduler_.is_kept(entry.first); });
    if (!kept_.empty() && num_prompt > 1) {
      const auto& [before, cached] = *kept_.rbegin();  // the newest: the last to yield
      const int64_t most_shared = std::min(cached, num_prompt - 1);
      continuation = {before,
                      static_cast<int64_t>(random_.below(static_cast<uint64_t>(most_shared + 1)))};
    }
    scheduler_.submit(static_cast<uint64_t>(id), num_prompt, max_length, continuation);
    live_[static_cast<uint64_t>(id)] = {num_prompt, max_length, num_prompt, 0,
                                        continuation ? continuation->num_tokens : 0};
  }

  void run_step() {
    const auto slices = scheduler_.plan();
    ASSERT_EQ(slices.empty(), live_.empty()) << "idle with work left, or work out of nothing";
    ASSERT_LE(scheduler_.num_running(), limits_.max_sequences);
    int64_t step_tokens = 0;
    std::set<uint64_t> ids;
    std::set<int32_t> pages;
    for (const ScheduledSlice& slice : slices) {
      Live& live = live_.at(slice.id);
      if (live.continued > 0 && slice.first_position == live.continued) {
        live.cached = live.continued;
        ++num_continued_;
      }
      live.continued = 0;
      ASSERT_TRUE(ids.insert(slice.id).second) << "two slices of one sequence";
      ASSERT_EQ(slice.first_position, live.cached);
      ASSERT_GT(slice.num_tokens, 0);
      const int64_t context = slice.first_position + slice.num_tokens;
      ASSERT_LE(context, live.length);
      ASSERT_EQ(slice.samples, context == live.length);
      ASSERT_LE(context, static_cast<int64_t>(slice.pages.size()) * limits_.page_tokens);
      for (const int32_t page : slice.pages) ASSERT_TRUE(pages.insert(page).second) << "two owners";
      step_tokens += slice.num_tokens;
    }
    ASSERT_LE(step_tokens, limits_.max_step_tokens);
    scheduler_.advance();
    for (const ScheduledSlice& slice : slices) {
      Live& live = live_.at(slice.id);
      live.cached += slice.num_tokens;
      if (!slice.samples) continue;
      if (live.length + 1 == live.max_length || random_.below(40) == 0) {
        end(slice.id);
      } else {
        scheduler_.append(slice.id);
        ++live.length;
      }
    }
  }

  Random random_;
  uint64_t steps_between_;  // submissions: a crowd, or few enough that kept pages last
  SchedulerLimits limits_;
  Scheduler scheduler_;
  std::map<uint64_t, Live> live_;
  std::map<uint64_t, int64_t> kept_;  // computed tokens; some may be gone since
  int num_continued_ = 0;
};

TEST(Scheduler, RandomStreamsFinishWithoutLeaks) {
  int num_continued = 0;
  for (uint64_t seed = 0; seed < 60; ++seed) {
    SCOPED_TRACE(seed);
    RandomStream stream(seed);
    stream.run(60);
    if (HasFatalFailure()) return;
    num_continued += stream.num_continued();
  }
  EXPECT_GT(num_continued, 100);
}

}  // namespace
}  // namespace tandem
