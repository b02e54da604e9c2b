// One of the kernels of stream.cuh, for 2 to 16 tokens: activations lie in shared memory beside the
// ring, read once for all of a block's tiles. From L2 for each tile, those of 8 tokens would be
// twice the bytes of 4-bit weights.
//
// Where the rows are too long for that, the blocks of a cluster share them: of the kShares shares
// of K each block has some, for the tiles of all. A tile's sums go to the block that owns it.
#pragma once

#include <cooperative_groups.h>

#include <array>

#include "kernels/cuda/stream.cuh"

namespace tandem {

constexpr int kShares = kReaders;   // of K, in both kernels: a token's sums are the same in both
constexpr int kSharedReaders = 16;  // warps, each with one share of one tile
constexpr int kPieceTokenBytes = kPieceChannels * 2;  // of one token
constexpr int kSharedThreads = (kSharedReaders + 1) * 32;
constexpr int kOwned = 2;  // tiles whose sums a block adds, at once
constexpr int kMaxStages = 12;

template <typename P, int kTiles>
struct SharedShape {
  static constexpr int kEach = kTiles == 1 ? P::kEach : 1;  // pieces of a warp in a stage
  static constexpr int kStepBytes = kSharedReaders * P::kBytes;
  static constexpr int kStageBytes = kEach * kStepBytes;
  static constexpr int kSumBytes = kOwned * kTiles * kShares * 512;
  static constexpr int kMaxBytes = 226 * 1024 - kSumBytes;  // for activations and the ring
  static_assert(P::kBytes % 16 == 0 && kSharedReaders == kOwned * kShares);
};

// Four matrices of 8 rows of 16 bytes: lane l gives the address of row l % 8 of matrix l / 8; lane
// 4 r + q gets word q of row r of each.
__device__ __forceinline__ uint4 load_matrices(uint32_t address) {
  uint4 v;
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "r"(address));
  return v;
}

__device__ __forceinline__ uint4 load_shared(uint32_t address) {
  uint4 v;
  asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "r"(address));
  return v;
}

struct SharedPlan {
  int ranks;  // blocks of a cluster: 1, 2, 4 or 8
  int stages;
  int token_bytes;  // of a token in shared memory
};

__device__ __forceinline__ int cluster_rank() {
  int rank;
  asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
}

// Tells block `rank` of the cluster, or this one where there is no cluster.
__device__ __forceinline__ void arrive_at(uint64_t* barrier, int rank, bool is_cluster) {
  if (!is_cluster) return arrive(barrier);
  asm volatile(
      "{\n.reg .b32 there;\nmapa.shared::cluster.u32 there, %0, %1;\n"
      "mbarrier.arrive.release.cluster.shared::cluster.b64 _, [there];\n}" ::"r"(
          shared_address(barrier)),
      "r"(rank)
      : "memory");
}

// For what arrive_at() tells.
__device__ __forceinline__ void wait_for_cluster(uint64_t* barrier, uint32_t phase) {
  asm volatile(
      "{\n.reg .pred done;\nretry:\n"
      "mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 done, [%0], %1;\n"
      "@done bra arrived;\nbra retry;\narrived:\n}" ::"r"(shared_address(barrier)),
      "r"(phase)
      : "memory");
}

template <typename T>
__device__ __forceinline__ T* in_block(T* p, int rank, bool is_cluster) {
  return is_cluster ? cooperative_groups::this_cluster().map_shared_rank(p, rank) : p;
}

template <typename Sum>
struct alignas(16) Fragment {
  Sum v[4];
};

// What a block does: `share` of the kShares pieces of each step of its tiles, from `first_share`
// on.
struct SharedWork {
  int rank, share, groups, first_share;
  int begin, end;  // tiles of the cluster
  int steps;       // of a row

  __device__ SharedWork(const Stream& p, const SharedPlan& plan) {
    rank = plan.ranks == 1 ? 0 : cluster_rank();
    share = kShares / plan.ranks;
    groups = kSharedReaders / share;
    first_share = rank * share;
    const int64_t tiles = (p.N + kTileRows - 1) / kTileRows;
    const int clusters = gridDim.x / plan.ranks, cluster = blockIdx.x / plan.ranks;
    begin = static_cast<int>(cluster * tiles / clusters);
    end = static_cast<int>((cluster + 1) * tiles / clusters);
    steps = (p.pieces + kShares - 1) / kShares;
  }
};

// By one thread: the block's share of its tiles, `groups` tiles at a time, kEach steps of K a
// stage.
template <typename P, int kEach>
__device__ __forceinline__ void copy_weights(const Stream& p, const SharedPlan& plan,
                                             const SharedWork& work, uint8_t* stages,
                                             Ring<kMaxStages>& ring) {
  constexpr int kStepBytes = kSharedReaders * P::kBytes;
  const uint64_t policy = evict_first();
  int stage = 0;
  uint32_t phase = 1;
  for (int tile = work.begin; tile < work.end; tile += work.groups) {
    const int rows = min(work.groups, work.end - tile);
    for (int step = 0; step < work.steps; step += kEach) {
      int bytes[kEach], all = 0;
#pragma unroll
      for (int e = 0; e < kEach; ++e) {
        const int left = p.pieces - (step + e) * kShares - work.first_share;
        bytes[e] = max(0, min(work.share, left)) * P::kBytes;
        all += bytes[e];
      }
      wait_barrier(&ring.empty[stage], phase);
      expect_bytes(&ring.full[stage], rows * all);
      const uint8_t* from =
          p.w +
          (static_cast<int64_t>(tile) * p.pieces + step * kShares + work.first_share) * P::kBytes;
      uint8_t* to = stages + stage * kEach * kStepBytes;
      for (int i = 0; i < rows; ++i) {
#pragma unroll
        for (int e = 0; e < kEach; ++e) {
          if (bytes[e] == 0) continue;
          bulk_copy_once(to + e * kStepBytes + i * work.share * P::kBytes,
                         from + (static_cast<int64_t>(i) * p.pieces + e * kShares) * P::kBytes,
                         bytes[e], &ring.full[stage], policy);
        }
      }
      if (++stage == plan.stages) stage = 0, phase ^= 1;
    }
  }
}

// By the readers: the block's share of x into shared memory, zero beyond K.
__device__ __forceinline__ void copy_tokens(const Stream& p, const SharedPlan& plan,
                                            const SharedWork& work, uint8_t* to) {
  constexpr int kChunks = kPieceTokenBytes / 16;
  const int share_chunks = work.share * kChunks;
  for (int i = threadIdx.x; i < work.steps * share_chunks; i += kSharedReaders * 32) {
    const int step = i / share_chunks, rest = i - step * share_chunks;
    const int channel = ((step * kShares + work.first_share) * kChunks + rest) * 8;
#pragma unroll 8
    for (int t = 0; t < p.T; ++t) {
      *reinterpret_cast<uint4*>(to + t * plan.token_bytes + i * 16) =
          channel < p.ldx
              ? *reinterpret_cast<const uint4*>(p.x + static_cast<int64_t>(t) * p.ldx + channel)
              : uint4{};
    }
  }
  asm volatile("bar.sync 1, %0;" ::"n"(kSharedReaders * 32) : "memory");
}

// A tile's sums of 8 tokens from t0 on, the shares' in their order; by one warp.
template <typename Sum>
__device__ __forceinline__ void store_sums(const Stream& p, const Sum (&shares)[kShares][128],
                                           int lane, int n0, int t0) {
  Fragment<Sum> sum{};
#pragma unroll
  for (int s = 0; s < kShares; ++s) {
    const auto one = *reinterpret_cast<const Fragment<Sum>*>(&shares[s][lane * 4]);
#pragma unroll
    for (int i = 0; i < 4; ++i) sum.v[i] += one.v[i];
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    store_sum(p, t0 + lane % 4 * 2 + i % 2, n0 + lane / 4 + i / 2 * 8, sum.v[i]);
  }
}

// kResident: blocks on a multiprocessor, the next kernel's included.
template <typename P, int kTiles, int kResident>
__global__ void __launch_bounds__(kSharedThreads, kResident)
    shared_kernel(const Stream p, const SharedPlan plan) {
  using Shape = SharedShape<P, kTiles>;
  extern __shared__ __align__(128) uint8_t memory[];
  __shared__ Ring<kMaxStages> ring;
  __shared__ uint64_t sums_full, sums_empty;  // mbarriers
  __shared__ __align__(16) typename P::Sum sums_of[kOwned][kTiles][kShares][128];
  constexpr int kReducers = kOwned * kTiles;  // warps
  launch_dependents();
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const SharedWork work(p, plan);
  const bool is_cluster = plan.ranks > 1;
  uint8_t* stages = memory + p.T * plan.token_bytes;
  if (threadIdx.x == 0) {
    init_barrier(&sums_full, kOwned * kShares);
    init_barrier(&sums_empty, kReducers * plan.ranks);
  }
  ring.init(kSharedReaders);
  if (is_cluster) asm volatile("barrier.cluster.arrive.release;" ::: "memory");
  if (warp == kSharedReaders) {
    if (lane == 0) copy_weights<P, Shape::kEach>(p, plan, work, stages, ring);
    __syncwarp();
    wait_for_inputs();
    if (is_cluster) asm volatile("barrier.cluster.wait.acquire;" ::: "memory");
    return;
  }
  wait_for_inputs();
  copy_tokens(p, plan, work, memory);
  if (is_cluster) asm volatile("barrier.cluster.wait.acquire;" ::: "memory");

  const int group = warp / work.share, share = warp % work.share;
  uint32_t x[kTiles];
#pragma unroll
  for (int j = 0; j < kTiles; ++j) {
    const int t = min(j * kTileTokens8 + P::Tokens::token_of(lane), p.T - 1);
    x[j] = shared_address(memory) + t * plan.token_bytes + share * kPieceTokenBytes +
           P::Tokens::byte_of(lane);
  }
  const int owner = group / kOwned;
  auto* sums_to =
      in_block(&sums_of[group % kOwned][0][work.first_share + share][lane * 4], owner, is_cluster);

  int stage = 0;
  uint32_t phase = 0;
  const uint8_t* piece_at = stages + warp * P::kBytes;
  typename P::Weights next[Shape::kEach];
  const auto fetch = [&] {
    wait_barrier(&ring.full[stage], phase);
#pragma unroll
    for (int e = 0; e < Shape::kEach; ++e)
      next[e].load(piece_at + stage * Shape::kStageBytes + e * Shape::kStepBytes, lane);
  };
  fetch();
  const int stage_steps = (work.steps + Shape::kEach - 1) / Shape::kEach;
  int left = (work.end - work.begin + work.groups - 1) / work.groups * stage_steps;
  uint32_t round = 0;
  for (int tile = work.begin; tile < work.end; tile += work.groups, round ^= 1) {
    const bool has_tile = tile + group < work.end;
    typename P::Sum sums[kTiles][4] = {};
    for (int step = 0; step < work.steps; step += Shape::kEach) {
      typename P::Weights now[Shape::kEach];
#pragma unroll
      for (int e = 0; e < Shape::kEach; ++e) now[e] = next[e];
      __syncwarp();
      if (lane == 0) arrive(&ring.empty[stage]);
      if (++stage == plan.stages) stage = 0, phase ^= 1;
      if (--left > 0) fetch();
#pragma unroll
      for (int e = 0; e < Shape::kEach; ++e) {
        if (!has_tile || (step + e) * kShares + work.first_share + share >= p.pieces) break;
        typename P::Tokens tokens[kTiles];
#pragma unroll
        for (int j = 0; j < kTiles; ++j)
          tokens[j].load(x[j] + (step + e) * work.share * kPieceTokenBytes);
        P::template multiply<kTiles>(now[e], p.scales_are_bf16, tokens, sums);
      }
    }
    if (tile != work.begin) wait_for_cluster(&sums_empty, round ^ 1);
#pragma unroll
    for (int j = 0; j < kTiles; ++j) {
      Fragment<typename P::Sum> mine;
#pragma unroll
      for (int i = 0; i < 4; ++i) mine.v[i] = sums[j][i];
      *reinterpret_cast<Fragment<typename P::Sum>*>(sums_to + j * kShares * 128) = mine;
    }
    __syncwarp();
    if (lane == 0) arrive_at(&sums_full, owner, is_cluster);
    if (warp >= kReducers) continue;
    // Also where it owns no tile: a block leaves when nobody writes to it any more.
    wait_for_cluster(&sums_full, round);
    const int slot = warp / kTiles, owned_tile = tile + work.rank * kOwned + slot;
    if (owned_tile < work.end) {
      store_sums(p, sums_of[slot][warp % kTiles], lane, owned_tile * kTileRows,
                 warp % kTiles * kTileTokens8);
    }
    __syncwarp();
    const bool is_last = tile + work.groups >= work.end;
    if (!is_last && lane < plan.ranks) arrive_at(&sums_empty, lane, is_cluster);
  }
}

// Clusters of `ranks` blocks that run at once.
template <typename P, int kTiles, int kResident>
int shared_clusters(const Context& context, int ranks) {
  static const std::array<int, 9> most = [] {
    constexpr int kBytes = SharedShape<P, kTiles>::kMaxBytes;
    const auto kernel = shared_kernel<P, kTiles, kResident>;
    CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes));
    std::array<int, 9> found{};
    for (const unsigned size : {2u, 4u, 8u}) {
      cudaLaunchAttribute attribute{};
      attribute.id = cudaLaunchAttributeClusterDimension;
      attribute.val.clusterDim.x = size;
      attribute.val.clusterDim.y = attribute.val.clusterDim.z = 1;
      cudaLaunchConfig_t config{};
      config.gridDim = dim3(size);
      config.blockDim = dim3(kSharedThreads);
      config.dynamicSmemBytes = kBytes;
      config.attrs = &attribute;
      config.numAttrs = 1;
      CUDA_CHECK(cudaOccupancyMaxActiveClusters(&found[size], kernel, &config));
    }
    return found;
  }();
  return ranks == 1 ? cuda_device(context).multiprocessors() : most[static_cast<size_t>(ranks)];
}

template <typename P, int kTiles>
SharedPlan shared_plan(const Stream& p, int ranks, int max_bytes) {
  const int steps = (p.pieces + kShares - 1) / kShares;
  SharedPlan plan{ranks, 0, steps * (kShares / ranks) * kPieceTokenBytes + P::Tokens::kSkew};
  const int room = std::max(0, max_bytes - p.T * plan.token_bytes);
  plan.stages = std::min(kMaxStages, room / SharedShape<P, kTiles>::kStageBytes);
  return plan;
}

template <typename P, int kTiles, int kResident>
void launch_plan(const Context& context, const Stream& p, const SharedPlan& plan) {
  using Shape = SharedShape<P, kTiles>;
  const int clusters = std::min(shared_clusters<P, kTiles, kResident>(context, plan.ranks),
                                (p.N + kTileRows - 1) / kTileRows);
  launch_clusters(context, shared_kernel<P, kTiles, kResident>, static_cast<unsigned>(plan.ranks),
                  dim3(static_cast<unsigned>(clusters * plan.ranks)), dim3(kSharedThreads),
                  static_cast<size_t>(p.T * plan.token_bytes + plan.stages * Shape::kStageBytes), p,
                  plan);
}

// False where the rows are too long for a pair of blocks: larger clusters leave multiprocessors
// idle.
template <typename P, int kTiles>
bool launch_shared(const Context& context, const Stream& p) {
  constexpr int kMaxBytes = SharedShape<P, kTiles>::kMaxBytes;
  SharedPlan plan = shared_plan<P, kTiles>(p, 1, kMaxBytes);
  // Many tokens of long rows take longer to copy than a pair's sums to meet.
  const bool is_long = plan.token_bytes > 16 * 1024 && p.T > 2;
  if (plan.stages < 2 || is_long) plan = shared_plan<P, kTiles>(p, 2, kMaxBytes);
  if (plan.stages < 2) return false;
  launch_plan<P, kTiles, 1>(context, p, plan);
  return true;
}

}  // namespace tandem
