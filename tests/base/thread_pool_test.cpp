#include "base/thread_pool.h"

#include <gtest/gtest.h>

#include <chrono>
#include <numeric>

namespace tandem {
namespace {

TEST(ThreadPool, EveryThreadRunsEachRegionOnce) {
  for (const int size : {1, 2, 5}) {
    ThreadPool pool(size);
    std::vector<std::atomic<int>> counts(static_cast<size_t>(size));
    for (int round = 0; round < 2000; ++round) {
      pool.run([&](int thread) { ++counts[static_cast<size_t>(thread)]; });
    }
    for (const auto& count : counts) EXPECT_EQ(count, 2000);
  }
}

TEST(ThreadPool, WakesWorkersThatSleep) {
  ThreadPool pool(3);
  for (int round = 0; round < 20; ++round) {
    std::this_thread::sleep_for(std::chrono::milliseconds(round % 3));
    std::atomic<int> sum{0};
    pool.run([&](int thread) { sum += thread + 1; });
    ASSERT_EQ(sum, 6);
  }
}

TEST(ThreadPool, ParallelForCoversTheRangeOnce) {
  ThreadPool pool(2);
  for (const int64_t count : {0, 1, 7, 8, 9, 1000}) {
    for (const int64_t chunk : {1, 8, 5000}) {
      std::vector<std::atomic<int>> seen(static_cast<size_t>(count));
      pool.parallel_for(count, chunk, [&](int64_t begin, int64_t end, int thread) {
        ASSERT_GE(thread, 0);
        ASSERT_LT(thread, 2);
        for (int64_t i = begin; i < end; ++i) ++seen[static_cast<size_t>(i)];
      });
      for (const auto& s : seen) ASSERT_EQ(s, 1);
    }
  }
}

TEST(ThreadPool, GivesTheCallersAffinityBack) {
  cpu_set_t before, after;
  ASSERT_EQ(pthread_getaffinity_np(pthread_self(), sizeof before, &before), 0);
  { ThreadPool pool(2); }
  ASSERT_EQ(pthread_getaffinity_np(pthread_self(), sizeof after, &after), 0);
  EXPECT_TRUE(CPU_EQUAL(&before, &after));
}

}  // namespace
}  // namespace tandem
