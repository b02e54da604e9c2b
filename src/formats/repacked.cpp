#include "formats/repacked.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/error.h"
#include "base/thread_pool.h"
#include "tensor/sparse.h"

namespace tandem {
namespace {

size_t aligned(size_t bytes) { return (bytes + 63) / 64 * 64; }

Encoding encoding_of(const IntegerSource& s) {
  if (s.is_sparse) return int4_group_24(s.group, s.scale_type);
  return s.bits == 4 && s.symmetric ? int4_group(s.group, s.scale_type)
                                    : int_zero(s.bits, s.group, s.scale_type);
}

// out[K/4 + K/8]: the two codes kept of each four, then their places.
void pack_sparse(const uint8_t* codes, int64_t K, std::byte* out) {
  std::vector<uint8_t> kept(static_cast<size_t>(K / 2), 8);
  auto* places = reinterpret_cast<uint8_t*>(out) + K / 4;
  std::memset(places, 0, static_cast<size_t>(K / 8));
  for (int64_t g = 0; g < K / 4; ++g) {
    const uint8_t* four = codes + 4 * g;
    for (const uint8_t two : kPlaces24) {
      const int first = two & 3, second = two >> 2;
      int pruned = 0;
      for (int i = 0; i < 4; ++i) pruned += four[i] == kPrunedCode;
      if (pruned != 2 || four[first] == kPrunedCode || four[second] == kPrunedCode) continue;
      kept[static_cast<size_t>(2 * g)] = four[first];
      kept[static_cast<size_t>(2 * g + 1)] = four[second];
      places[g / 2] = static_cast<uint8_t>(places[g / 2] | two << (g % 2 * 4));
    }
  }
  pack_codes(kept.data(), K / 2, 4, out);
}

}  // namespace

Repacked::Repacked(IntegerSource source) : source_(std::move(source)) {
  const auto& s = source_;
  CHECK(s.N > 0 && s.K > 0 && s.group > 0 && s.K % s.group == 0, "N {} K {} group {}", s.N, s.K,
        s.group);
  CHECK(!s.is_sparse || (s.bits == 4 && s.symmetric && s.columns.empty()), "{} bits", s.bits);
  weight_.encoding = encoding_of(s);
  weight_.N = s.N;
  weight_.K = s.K;
  weight_.columns = s.columns.empty() ? nullptr : s.columns.data();
  const size_t data = aligned(weight_.data_bytes());
  const size_t scales =
      aligned(static_cast<size_t>(s.N * (s.K / s.group)) * scale_bytes(s.scale_type));
  planes_ = Buffer(data + scales + weight_.zeros_bytes());
  weight_.data = planes_.data();
  weight_.scales = planes_.data() + data;
  if (weight_.encoding.has_zeros()) {
    weight_.zeros = reinterpret_cast<const uint8_t*>(planes_.data() + data + scales);
  }
  planes_.close();
}

void Repacked::make_rows(int64_t first, int64_t count) {
  const int64_t K = source_.K, groups = K / source_.group;
  const size_t row_bytes = weight_.encoding.row_bytes(K);
  thread_local std::vector<uint8_t> codes, row, zeros;
  codes.resize(static_cast<size_t>(count * K));
  row.resize(static_cast<size_t>(K));
  zeros.resize(static_cast<size_t>(count * groups));
  const size_t scales_at = static_cast<size_t>(first * groups) * scale_bytes(source_.scale_type);
  std::byte* const scales = planes_.data() + (weight_.scales - weight_.data) + scales_at;
  source_.read(first, count, codes.data(), scales, zeros.data());
  for (int64_t n = 0; n < count; ++n) {
    const uint8_t* in_order = codes.data() + n * K;
    if (!source_.columns.empty()) {
      for (int64_t k = 0; k < K; ++k)
        row[static_cast<size_t>(k)] = in_order[source_.columns[static_cast<size_t>(k)]];
      in_order = row.data();
    }
    std::byte* out = planes_.data() + static_cast<size_t>(first + n) * row_bytes;
    if (source_.is_sparse) {
      pack_sparse(in_order, K, out);
    } else {
      pack_codes(in_order, K, source_.bits, out);
    }
  }
  if (weight_.zeros != nullptr) {
    auto* to = planes_.as<uint8_t>() + (weight_.zeros - std::as_const(planes_).as<uint8_t>());
    std::memcpy(to + first * groups, zeros.data(), zeros.size());
  }
}

void Repacked::ensure(ThreadPool& pool) {
  if (is_made_) return;
  planes_.open();
  pool.parallel_for((source_.N + kRowBlock - 1) / kRowBlock, 1,
                    [&](int64_t begin, int64_t end, int) {
                      for (int64_t b = begin; b < end; ++b) {
                        make_rows(b * kRowBlock, std::min(kRowBlock, source_.N - b * kRowBlock));
                      }
                    });
  is_made_ = true;
}

void Repacked::release() {
  if (!is_made_) return;
  planes_.close();
  is_made_ = false;
}

bool Repacked::holds(const std::byte* data) const {
  return data >= planes_.data() && data < planes_.data() + planes_.size_bytes();
}

std::vector<int32_t> columns_by_group(const std::vector<int32_t>& group_of_channel, int64_t group,
                                      const std::string& where) {
  const auto K = static_cast<int64_t>(group_of_channel.size()), num_groups = K / group;
  std::vector<int64_t> sizes(static_cast<size_t>(num_groups));
  std::vector<int32_t> columns(group_of_channel.size());
  bool in_order = true;
  for (int64_t k = 0; k < K; ++k) {
    const int32_t g = group_of_channel[static_cast<size_t>(k)];
    if (g < 0 || g >= num_groups) {
      fail(ErrorKind::bad_file, "{}: channel {} is of group {}, expected 0 to {}", where, k, g,
           num_groups - 1);
    }
    int64_t& size = sizes[static_cast<size_t>(g)];
    if (size == group) {
      fail(ErrorKind::bad_file, "{}: group {} has more than {} channels", where, g, group);
    }
    columns[static_cast<size_t>(g * group + size++)] = static_cast<int32_t>(k);
    in_order = in_order && g == k / group;
  }
  if (in_order) columns.clear();
  return columns;
}

Weight add_planes(IntegerSource source, RepackedPlanes* planes) {
  auto repacked = std::make_shared<Repacked>(std::move(source));
  const Weight weight = repacked->weight();
  planes->emplace(weight.data, std::move(repacked));
  return weight;
}

Repacked* find_planes(const RepackedPlanes& planes, const Weight& weight) {
  const auto after = planes.upper_bound(weight.data);
  if (after == planes.begin()) return nullptr;
  const auto& [address, found] = *std::prev(after);
  return found->holds(weight.data) ? found.get() : nullptr;
}

}  // namespace tandem
