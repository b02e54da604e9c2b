// The engine's plain sibling: one sequence, no sampling, every row of logits.
#include <algorithm>
#include <numeric>

#include "base/error.h"
#include "runtime/engine.h"
#include "runtime/kv_store.h"

namespace tandem {
namespace {

// Large enough that a pass over the weights is paid by many tokens (beyond about 64 the linears are
// bound by arithmetic), small enough that the logits stay bounded: 128 rows of 49152 are 25 MB.
constexpr int64_t kSegmentTokens = 128;

}  // namespace

struct Scorer::Impl {
  Impl(const Model& model_, KvType kv_type, int64_t max_window_)
      : model(model_),
        max_window(max_window_),
        store(model_.kv_layout(kv_type), (max_window_ + kPageTokens - 1) / kPageTokens, model_.device()),
        workspace(model_.make_workspace(kSegmentTokens, kSegmentTokens,
                                        (max_window_ + kPageTokens - 1) / kPageTokens)),
        pages(static_cast<size_t>((max_window_ + kPageTokens - 1) / kPageTokens)),
        positions(static_cast<size_t>(max_window_)) {
    std::iota(pages.begin(), pages.end(), 0);
    std::iota(positions.begin(), positions.end(), 0);
    batch.logit_rows.reserve(static_cast<size_t>(kSegmentTokens));
  }

  const Model& model;
  const int64_t max_window;
  KvStore store;
  Model::WorkspacePtr workspace;
  std::vector<int32_t> pages;      // 0, 1, ...: the window is the only sequence
  std::vector<int32_t> positions;  // [max_window]
  Batch batch;
};

Scorer::Scorer(const Model& model, KvType kv_type, int64_t max_window) {
  if (max_window < 1 || max_window > model.config().max_context) {
    fail(ErrorKind::usage,
         "window is {} tokens; expected 1 to {}, the most this model was made for", max_window,
         model.config().max_context);
  }
  impl_ = std::make_unique<Impl>(model, kv_type, max_window);
}

Scorer::~Scorer() = default;

void Scorer::score(std::span<const int32_t> tokens, int64_t first, const LogitSink& sink) {
  const int64_t V = impl_->model.config().vocab_size;
  const int64_t num_tokens = static_cast<int64_t>(tokens.size());
  CHECK(num_tokens <= impl_->max_window && first >= 0, "window of {} tokens from {}; made for {}",
        num_tokens, first, impl_->max_window);
  for (const int32_t token : tokens) {
    if (token < 0 || token >= V) {
      fail(ErrorKind::usage, "token {}; expected ids from 0 to {}", token, V - 1);
    }
  }
  Batch& batch = impl_->batch;
  for (int64_t begin = 0; begin < num_tokens; begin += kSegmentTokens) {
    const int64_t end = std::min(begin + kSegmentTokens, num_tokens);
    batch.T = end - begin;
    batch.tokens = tokens.data() + begin;
    batch.positions = impl_->positions.data() + begin;
    batch.sequences.assign(1, {0, end - begin, end, impl_->pages.data(), num_tokens});
    batch.logit_rows.clear();
    for (int64_t p = std::max(begin, first); p < end; ++p) {
      batch.logit_rows.push_back(static_cast<int32_t>(p - begin));
    }
    impl_->model.forward(batch, impl_->store.cache(), *impl_->workspace);
    const float* logits =
        impl_->model.logits(*impl_->workspace, static_cast<int64_t>(batch.logit_rows.size()));
    for (const int32_t row : batch.logit_rows) {
      sink(begin + row, logits);
      logits += V;
    }
  }
}

}  // namespace tandem
