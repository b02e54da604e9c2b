// Batch -> the arrays that kernels read, and the graphs of decode steps.
#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>

#include "base/error.h"
#include "kernels/cuda/attention.h"
#include "kernels/cuda/cuda_device.h"

namespace tandem {
namespace {

// How the context of a single token is cut: short ones in one piece or few, long ones in pieces
// that cost little to add up, at most 32. It depends on nothing else, so that neither does the
// result.
struct Cut {
  int64_t begin, end, part_pages;  // pages that are seen
  int64_t parts() const { return (end - begin + part_pages - 1) / part_pages; }
};

Cut cut_of(const SequenceSlice& slice, const KvLayout& layout) {
  const int64_t position = slice.context - 1;
  const int64_t begin = layout.first_key(position) / kPageTokens, end = position / kPageTokens + 1;
  const int64_t pages = end - begin;
  const int64_t part = pages <= 4    ? pages
                       : pages <= 8  ? 2
                       : pages <= 32 ? 4
                                     : std::max<int64_t>(8, (pages + 31) / 32);
  return {begin, end, part};
}

// Parts that one item takes: as many as let `slots` blocks, each with as many units of an item and
// one of G kv heads as the others, end first. An item costs its pages and kItemPages more.
int64_t parts_per_item(const Batch& batch, const KvLayout& layout, int64_t slots) {
  constexpr int64_t kItemPages = 3, kMaxParts = 32;
  int64_t best = 1, least = std::numeric_limits<int64_t>::max();
  for (int64_t each = 1; each <= kMaxParts; each *= 2) {
    int64_t items = 0, longest = 0;
    for (const SequenceSlice& slice : batch.sequences) {
      if (slice.num_tokens != 1) continue;
      const Cut cut = cut_of(slice, layout);
      items += (cut.parts() + each - 1) / each;
      longest = std::max(longest, std::min(each * cut.part_pages, cut.end - cut.begin));
    }
    const int64_t rounds = (items * layout.G + slots - 1) / slots;
    const int64_t cost = rounds * (longest + kItemPages);
    if (cost <= least) least = cost, best = each;
  }
  return best;
}

int64_t max_items(const StepLimits& limits) {
  return static_cast<int64_t>(
      std::bit_ceil(static_cast<uint64_t>(limits.max_tokens + limits.max_pages / 2 + 1)));
}

// No context of p pages has more than 4 + p / 8 items.
int64_t max_slots(const StepLimits& limits) {
  return std::min(limits.max_pages, 4 * limits.max_tokens + limits.max_pages / 8) + 1;
}

}  // namespace

CudaStep::CudaStep(CudaDevice& device, const StepLimits& limits, int64_t H, const KvLayout& layout)
    : stream_(device.stream()),
      limits_(limits),
      decode_blocks_(kDecodeBlocks * device.multiprocessors()) {
  CHECK(H / layout.G <= kMaxHeadsPerKvHead, "H {} G {}", H, layout.G);
  const size_t ints =
      static_cast<size_t>(4 * limits.max_tokens + limits.max_logits + limits.max_pages) +
      static_cast<size_t>(max_items(limits) + limits.max_tokens) * sizeof(AttentionItem) / 4;
  host_ = Buffer(ints * 4, &device.pinned_memory());
  device_ = Buffer(ints * 4, &device);
  partials_ =
      Buffer(static_cast<size_t>(max_slots(limits) * H * (layout.D + kRowPadding)) * sizeof(float),
             &device);
  counters_ = Buffer(static_cast<size_t>(max_slots(limits) * layout.G) * sizeof(uint32_t), &device);
  items_.reserve(static_cast<size_t>(max_items(limits)));
  CUDA_CHECK(cudaEventCreateWithFlags(&copied_, cudaEventDisableTiming));
}

CudaStep::~CudaStep() {
  cudaStreamSynchronize(stream_);
  for (auto& [shape, recorded] : recorded_) {
    if (recorded.graph != nullptr) cudaGraphExecDestroy(recorded.graph);
  }
  cudaEventDestroy(copied_);
}

uint64_t CudaStep::size_bytes() const {
  return device_.size_bytes() + partials_.size_bytes() + counters_.size_bytes();
}

void CudaStep::add_items(const SequenceSlice& slice, int64_t pages, int64_t parts_each,
                         const KvLayout& layout) {
  const auto i32 = [](int64_t value) { return static_cast<int32_t>(value); };
  const Cut cut = cut_of(slice, layout);
  const int64_t parts = cut.parts(), items = (parts + parts_each - 1) / parts_each;
  for (int64_t part = 0; part < parts; part += parts_each) {
    items_.push_back({i32(slice.first_token), 1, i32(slice.context - 1), i32(pages),
                      i32(cut.begin + part * cut.part_pages),
                      i32(std::min(cut.begin + (part + parts_each) * cut.part_pages, cut.end)),
                      i32(cut.part_pages), i32(part), i32(parts), i32(num_slots_), i32(items)});
  }
  if (parts > 1) num_slots_ += parts;
}

// The last tile sees most keys and comes first.
void CudaStep::add_tiles(const SequenceSlice& slice, int64_t pages, int64_t H,
                         const KvLayout& layout) {
  const auto i32 = [](int64_t value) { return static_cast<int32_t>(value); };
  const int64_t tile = kPromptTileRows / (H / layout.G);
  for (int64_t i = (slice.num_tokens - 1) / tile * tile; i >= 0; i -= tile) {
    const int64_t tokens = std::min(tile, slice.num_tokens - i);
    const int64_t position = slice.context - slice.num_tokens + i;
    tiles_.push_back({i32(slice.first_token + i), i32(tokens), i32(position), i32(pages),
                      i32(layout.first_key(position) / kPageTokens),
                      i32((position + tokens - 1) / kPageTokens + 1), 0, 0, 0, 0, 0});
  }
}

void CudaStep::stage(const Batch& batch, const KvCache& cache, int64_t H) {
  const int64_t num_logits = static_cast<int64_t>(batch.logit_rows.size());
  int64_t num_pages = 0;
  items_.clear();
  tiles_.clear();
  num_slots_ = 0;
  const int64_t parts_each = parts_per_item(batch, cache.layout, decode_blocks_);
  for (const SequenceSlice& slice : batch.sequences) {
    if (slice.num_tokens == 1) {
      add_items(slice, num_pages, parts_each, cache.layout);
    } else {
      add_tiles(slice, num_pages, H, cache.layout);
    }
    num_pages += (slice.context + kPageTokens - 1) / kPageTokens;
  }
  decodes_ = tiles_.empty();
  // Few shapes of steps, so that few graphs are recorded.
  if (!items_.empty()) items_.resize(std::bit_ceil(items_.size()), AttentionItem{});
  CHECK(batch.T <= limits_.max_tokens && num_logits <= limits_.max_logits &&
            num_pages <= limits_.max_pages && num_slots_ <= max_slots(limits_),
        "T {} logits {} pages {} slots {} of {} {} {} {}", batch.T, num_logits, num_pages,
        num_slots_, limits_.max_tokens, limits_.max_logits, limits_.max_pages, max_slots(limits_));

  // The pages come last: all else lies where the shape of the step says.
  CUDA_CHECK(cudaEventSynchronize(copied_));  // the last step's copy has left the host's buffer
  int32_t* host = host_.as<int32_t>();
  const int32_t* device = device_.as<int32_t>();
  int64_t at = 0;
  const auto put = [&](const int32_t* from, int64_t count) {
    if (from != nullptr) std::memcpy(host + at, from, static_cast<size_t>(count) * 4);
    at += count;
    return device + (at - count);
  };
  view_.tokens = put(batch.tokens, batch.T);
  view_.positions = put(batch.positions, batch.T);
  int32_t* page_tables = host + at;
  view_.page_tables = put(nullptr, batch.T);
  int32_t* lengths = host + at;
  view_.lengths = put(nullptr, batch.T);
  view_.logit_rows = put(batch.logit_rows.data(), num_logits);
  const auto put_items = [&](const std::vector<AttentionItem>& items) {
    return reinterpret_cast<const AttentionItem*>(
        put(reinterpret_cast<const int32_t*>(items.data()),
            static_cast<int64_t>(items.size() * sizeof(AttentionItem) / 4)));
  };
  view_.num_items = static_cast<int32_t>(items_.size());
  view_.num_tiles = static_cast<int32_t>(tiles_.size());
  view_.items = put_items(items_);
  view_.tiles = put_items(tiles_);
  view_.pages = device + at;
  const int64_t pages_begin = at;
  for (const SequenceSlice& slice : batch.sequences) {
    std::fill_n(page_tables + slice.first_token, slice.num_tokens,
                static_cast<int32_t>(at - pages_begin));
    std::fill_n(lengths + slice.first_token, slice.num_tokens,
                static_cast<int32_t>(std::max(slice.context, slice.length)));
    put(slice.pages, (slice.context + kPageTokens - 1) / kPageTokens);
  }
  view_.partials = partials_.as<float>();
  view_.counters = counters_.as<uint32_t>();
  shape_ = {batch.T, num_logits, view_.num_items, cache.base};
  CUDA_CHECK(cudaMemcpyAsync(device_.data(), host, static_cast<size_t>(at) * 4,
                             cudaMemcpyHostToDevice, stream_));
  CUDA_CHECK(cudaEventRecord(copied_, stream_));
}

void CudaStep::run(const std::function<void()>& launch) {
  // The first step of a shape runs as it is: that loads its kernels, which a recording must not do.
  Recorded* recorded = decodes_ ? &recorded_[shape_] : nullptr;
  if (recorded == nullptr || recorded->uses++ == 0) {
    launch();
    return;
  }
  if (recorded->graph == nullptr) {
    CUDA_CHECK(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal));
    launch();
    cudaGraph_t graph = nullptr;
    CUDA_CHECK(cudaStreamEndCapture(stream_, &graph));
    const cudaError_t error = cudaGraphInstantiate(&recorded->graph, graph, 0);
    cudaGraphDestroy(graph);
    CUDA_CHECK(error);
  }
  CUDA_CHECK(cudaGraphLaunch(recorded->graph, stream_));
}

}  // namespace tandem
