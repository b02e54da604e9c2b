// A pool of pinned threads that run one function together: fork, work, join. Workers spin for a short
// while between regions, because a decode step opens hundreds of them, and then sleep.
#pragma once

#include <sched.h>

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>
#include <type_traits>
#include <vector>

namespace tandem {

class ThreadPool {
 public:
  // The calling thread is thread 0; when `pin` is set it too is pinned, until the pool is destroyed.
  explicit ThreadPool(int num_threads, bool pin = true);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int size() const { return num_threads_; }

  // Runs f(thread) on every thread, thread in [0, size()), and returns when all have finished.
  // f must not throw and must not call run().
  template <typename F>
  void run(F&& f) {
    using Callable = std::remove_reference_t<F>;
    run_erased([](void* object, int thread) { (*static_cast<Callable*>(object))(thread); },
               const_cast<void*>(static_cast<const void*>(&f)));
  }

  // Splits [0, count) in chunks handed out on demand: f(begin, end, thread). One chunk or one thread
  // runs in place.
  template <typename F>
  void parallel_for(int64_t count, int64_t chunk, F&& f) {
    if (count <= chunk || num_threads_ == 1) {
      if (count > 0) f(int64_t{0}, count, 0);
      return;
    }
    std::atomic<int64_t> next{0};
    run([&](int thread) {
      for (;;) {
        const int64_t begin = next.fetch_add(chunk, std::memory_order_relaxed);
        if (begin >= count) return;
        f(begin, begin + chunk < count ? begin + chunk : count, thread);
      }
    });
  }

 private:
  using Region = void (*)(void*, int);
  void run_erased(Region region, void* object);
  void worker(int thread, int cpu);

  int num_threads_;
  bool pinned_ = false;
  cpu_set_t caller_affinity_{};  // restored by the destructor
  std::vector<std::thread> workers_;
  Region region_ = nullptr;
  void* object_ = nullptr;
  alignas(64) std::atomic<uint64_t> epoch_{0};
  alignas(64) std::atomic<int> running_{0};
  alignas(64) std::atomic<bool> stop_{false};
  std::atomic<int> sleeping_{0};
  std::mutex mutex_;
  std::condition_variable wake_;
};

}  // namespace tandem
