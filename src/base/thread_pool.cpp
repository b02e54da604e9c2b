#include "base/thread_pool.h"

#include <immintrin.h>
#include <pthread.h>
#include <sched.h>

#include "base/cpu.h"

namespace tandem {
namespace {

// About 50 us at 3 GHz: longer than the gaps inside a step, shorter than anyone's patience.
constexpr int kSpins = 2000;

void pin_to(int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  pthread_setaffinity_np(pthread_self(), sizeof set, &set);  // a refusal only costs speed
}

}  // namespace

ThreadPool::ThreadPool(int num_threads, bool pin) : num_threads_(num_threads < 1 ? 1 : num_threads) {
  const std::vector<int> cpus = allowed_cpus();
  pin = pin && num_threads_ <= static_cast<int>(cpus.size());
  for (int thread = 1; thread < num_threads_; ++thread) {
    workers_.emplace_back(&ThreadPool::worker, this, thread, pin ? cpus[thread] : -1);
  }
  if (pin && num_threads_ > 1) {
    pinned_ = pthread_getaffinity_np(pthread_self(), sizeof caller_affinity_, &caller_affinity_) == 0;
    if (pinned_) pin_to(cpus[0]);
  }
}

ThreadPool::~ThreadPool() {
  {
    std::lock_guard lock(mutex_);
    stop_.store(true);
    epoch_.fetch_add(1);
  }
  wake_.notify_all();
  for (auto& worker : workers_) worker.join();
  if (pinned_) pthread_setaffinity_np(pthread_self(), sizeof caller_affinity_, &caller_affinity_);
}

void ThreadPool::run_erased(Region region, void* object) {
  if (num_threads_ == 1) {
    region(object, 0);
    return;
  }
  region_ = region;
  object_ = object;
  running_.store(num_threads_ - 1, std::memory_order_relaxed);
  epoch_.fetch_add(1, std::memory_order_seq_cst);
  if (sleeping_.load(std::memory_order_seq_cst) > 0) {
    std::lock_guard lock(mutex_);
    wake_.notify_all();
  }
  region(object, 0);
  int spins = 0;
  while (running_.load(std::memory_order_acquire) != 0) {
    _mm_pause();
    if (++spins > kSpins) {  // a worker lost its CPU: let it have this one
      sched_yield();
      spins = 0;
    }
  }
}

void ThreadPool::worker(int thread, int cpu) {
  if (cpu >= 0) pin_to(cpu);
  uint64_t seen = 0;
  for (;;) {
    int spins = 0;
    while (epoch_.load(std::memory_order_acquire) == seen) {
      _mm_pause();
      if (++spins > kSpins) {
        std::unique_lock lock(mutex_);
        sleeping_.fetch_add(1, std::memory_order_seq_cst);
        wake_.wait(lock, [&] { return epoch_.load(std::memory_order_seq_cst) != seen; });
        sleeping_.fetch_sub(1);
      }
    }
    seen = epoch_.load(std::memory_order_acquire);
    if (stop_.load()) return;
    region_(object_, thread);
    running_.fetch_sub(1, std::memory_order_release);
  }
}

}  // namespace tandem
