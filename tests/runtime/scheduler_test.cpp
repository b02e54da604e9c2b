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

TEST(SchedulerDeathTest, RefusesWhatCanNeverRun) {
  Scheduler scheduler(
      {.max_sequences = 1, .max_step_tokens = 4, .num_pages = 2, .page_tokens = 16});
  EXPECT_DEATH(scheduler.submit(1, 10, 34), "num_pages");
  EXPECT_DEATH(scheduler.submit(1, 10, 10), "num_prompt");
  EXPECT_DEATH(scheduler.remove(1), "neither");
}

// A stream of requests with random lengths, stops and cancellations, checked after every plan.
class RandomStream {
 public:
  explicit RandomStream(uint64_t seed)
      : random_(seed),
        limits_{.max_sequences = 1 + static_cast<int64_t>(random_.below(8)),
                .max_step_tokens = 8 + static_cast<int64_t>(random_.below(40)),
                .num_pages = 4 + static_cast<int64_t>(random_.below(30)),
                .page_tokens = 16},
        scheduler_(limits_) {}

  void run(int num_requests) {
    int submitted = 0;
    for (int step = 0; submitted < num_requests || !live_.empty(); ++step) {
      ASSERT_LT(step, 100000) << "no progress";
      while (submitted < num_requests && random_.below(3) == 0) submit(submitted++);
      if (!live_.empty() && random_.below(50) == 0) {
        const auto it =
            std::next(live_.begin(), static_cast<std::ptrdiff_t>(random_.below(live_.size())));
        scheduler_.remove(it->first);
        live_.erase(it);
      }
      run_step();
      if (::testing::Test::HasFatalFailure()) return;
    }
    EXPECT_EQ(scheduler_.num_running() + scheduler_.num_waiting(), 0);
    EXPECT_EQ(scheduler_.pages().num_free(), limits_.num_pages);
  }

 private:
  struct Live {
    int64_t num_prompt, max_length, length, cached;
  };

  void submit(int id) {
    const int64_t most = limits_.num_pages * limits_.page_tokens + 1;
    const int64_t max_length =
        2 + static_cast<int64_t>(random_.below(static_cast<uint64_t>(most - 1)));
    const int64_t num_prompt =
        1 + static_cast<int64_t>(random_.below(static_cast<uint64_t>(max_length - 1)));
    scheduler_.submit(static_cast<uint64_t>(id), num_prompt, max_length);
    live_[static_cast<uint64_t>(id)] = {num_prompt, max_length, num_prompt, 0};
  }

  void run_step() {
    const auto slices = scheduler_.plan();
    ASSERT_EQ(slices.empty(), live_.empty()) << "idle with work left, or work out of nothing";
    ASSERT_LE(scheduler_.num_running(), limits_.max_sequences);
    int64_t step_tokens = 0;
    std::set<uint64_t> ids;
    std::set<int32_t> pages;
    for (const ScheduledSlice& slice : slices) {
      const Live& live = live_.at(slice.id);
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
        scheduler_.remove(slice.id);
        live_.erase(slice.id);
      } else {
        scheduler_.append(slice.id);
        ++live.length;
      }
    }
  }

  Random random_;
  SchedulerLimits limits_;
  Scheduler scheduler_;
  std::map<uint64_t, Live> live_;
};

TEST(Scheduler, RandomStreamsFinishWithoutLeaks) {
  for (uint64_t seed = 0; seed < 60; ++seed) {
    SCOPED_TRACE(seed);
    RandomStream(seed).run(60);
    if (HasFatalFailure()) return;
  }
}

}  // namespace
}  // namespace tandem
