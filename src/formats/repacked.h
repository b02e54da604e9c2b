// A weight whose file keeps its codes in another order than Weight has them: its planes are made,
// from the file's bytes and by all threads, when a kernel wants the weight, and given back once it
// is packed, so that a model is never in memory twice.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "tensor/buffer.h"
#include "tensor/weight.h"

namespace tandem {

class ThreadPool;

inline constexpr uint8_t kPrunedCode = 0xFF;

// Integer codes with a scale and a zero point a group, as a file gives them: any order, any
// packing.
struct IntegerSource {
  int64_t N = 0;
  int64_t K = 0;
  int bits = 4;       // 2, 3, 4 or 8
  int64_t group = 0;  // a multiple of 32 that divides K
  ScaleType scale_type = ScaleType::f16;
  bool symmetric = false;  // every zero point is 2^(bits - 1)
  // 2:4 in 4 bits, symmetric, in order: two of each four codes are kPrunedCode. A group with another
  // number of them gets places that no model takes (tensor/sparse.h).
  bool is_sparse = false;
  // [K], a permutation: column k as the groups count it is the input channel columns[k]; empty: in
  // order.
  std::vector<int32_t> columns = {};
  // Rows [first, first + count), `first` a multiple of kRowBlock, `count` at most that: codes
  // [count, K], in the order of the input channels, scales [count, groups] of scale_type, zeros
  // [count, groups]. May run on any thread; must not throw.
  std::function<void(int64_t first, int64_t count, uint8_t* codes, std::byte* scales,
                     uint8_t* zeros)>
      read = {};
};

inline constexpr int64_t kRowBlock = 64;

class Repacked {
 public:
  explicit Repacked(IntegerSource source);
  Repacked(const Repacked&) = delete;
  Repacked& operator=(const Repacked&) = delete;

  // What the planes are. Its pointers stay, but may be read only between ensure() and release().
  // int4_group of symmetric codes of 4 bits, int4_group_24 of sparse ones, else the int*_zero of the
  // bits.
  const Weight& weight() const { return weight_; }
  // Not for two threads at once.
  void ensure(ThreadPool& pool);
  void release();
  bool holds(const std::byte* data) const;

 private:
  void make_rows(int64_t first, int64_t count);

  IntegerSource source_;
  Buffer planes_;
  Weight weight_;
  bool is_made_ = false;
};

// IntegerSource::columns of channels that are of these groups, 0 to their number less one, each of
// `group` channels: empty where channel k is of group k / group. Throws bad_file that opens with
// `where`.
std::vector<int32_t> columns_by_group(const std::vector<int32_t>& group_of_channel, int64_t group,
                                      const std::string& where);

// By where they begin.
using RepackedPlanes = std::map<const std::byte*, std::shared_ptr<Repacked>>;

// The weight that the source becomes, its planes among `planes`. The source must be well formed:
// CHECKed.
Weight add_planes(IntegerSource source, RepackedPlanes* planes);
// The planes that a weight, or the row range that it is of, lies in; nullptr: none of these.
Repacked* find_planes(const RepackedPlanes& planes, const Weight& weight);

}  // namespace tandem
