// 32 channels of kLanes rows in codes of 4, 5 or 6 bits, as words of four channels (quads) a lane:
//   4 vectors of nibbles: vector q holds quad q (channels 4q..) in the low nibbles, quad 4 + q in the high ones
//   5 bits: then 1 vector; bit q of each byte is the fifth bit of quad q = 0..7
//   6 bits: then 2 vectors, one for each half of the channels; bits 2q, 2q + 1 are the upper bits of its quad q
// So a code costs its bits and nothing more, and a shift and a mask bring the upper bits to their place.
// PairPlanes is the same of 2 or 3 bits:
//   2 vectors of pairs of bits: in vector v bits 2i, 2i + 1 of each byte are quad 4v + i
//   3 bits: then 1 vector; bit q of each byte is the third bit of quad q
#pragma once

template <class S, int Bits>
struct CodePlanes {
  using I = typename S::I;
  static_assert(Bits >= 4 && Bits <= 6);
  static constexpr int kLanes = S::kLanes;
  static constexpr int64_t kVectorBytes = 4 * kLanes;
  static constexpr int64_t kBytes = Bits * kVectorBytes;

  // Where the upper bits of quad 0..7 lie: vector behind the nibbles, and lowest bit in its bytes.
  static constexpr int upper_vector(int quad) { return Bits == 5 ? 0 : quad / 4; }
  static constexpr int upper_bit(int quad) { return Bits == 5 ? quad : quad % 4 * 2; }
  static constexpr int kUpperMask = Bits == 5 ? 1 : 3;

  // first[m] += codes . x[m] over channels 0..15, last[m] over 16..31; the two may be one array.
  template <int MB>
  [[gnu::always_inline]] static void dot(const uint8_t* codes, const int8_t* x, int64_t ldx, I (&first)[MB],
                                         I (&last)[MB]) {
    quads<0>(codes, x, ldx, first, last);
    quads<1>(codes, x, ldx, first, last);
    quads<2>(codes, x, ldx, first, last);
    quads<3>(codes, x, ldx, first, last);
  }

  // Quads q and 4 + q.
  template <int q, int MB>
  [[gnu::always_inline]] static void quads(const uint8_t* codes, const int8_t* x, int64_t ldx, I (&first)[MB],
                                           I (&last)[MB]) {
    const I raw = S::load_bytes(codes + q * kVectorBytes);
    const I low = with_upper<q>(S::and_bytes(raw, 15), codes);
    const I high = with_upper<4 + q>(S::and_bytes(S::template shift<-4>(raw), 15), codes);
#pragma GCC unroll 8
    for (int m = 0; m < MB; ++m) first[m] = S::dot_quad(first[m], low, S::broadcast4(x + m * ldx + 4 * q));
#pragma GCC unroll 8
    for (int m = 0; m < MB; ++m) last[m] = S::dot_quad(last[m], high, S::broadcast4(x + m * ldx + 16 + 4 * q));
  }

  template <int quad>
  [[gnu::always_inline]] static I with_upper(I nibbles, const uint8_t* codes) {
    if constexpr (Bits == 4) {
      return nibbles;
    } else {
      const I upper = S::load_bytes(codes + (4 + upper_vector(quad)) * kVectorBytes);
      return S::or_bits(nibbles, S::and_bytes(S::template shift<4 - upper_bit(quad)>(upper), kUpperMask << 4));
    }
  }

  // rows: codes of each lane's channels, `stride` bytes from lane to lane.
  static void store(const uint8_t* rows, int64_t stride, std::byte* out) {
    std::memset(out, 0, kBytes);
    // Four channels of a lane are four bytes that shift alike.
    const auto add = [out](int vector, int lane, uint32_t bits) {
      std::byte* const at = out + vector * kVectorBytes + lane * 4;
      const uint32_t sum = load_unaligned<uint32_t>(at) | bits;
      std::memcpy(at, &sum, 4);
    };
    for (int lane = 0; lane < kLanes; ++lane) {
      for (int quad = 0; quad < 8; ++quad) {
        const auto codes = load_unaligned<uint32_t>(rows + lane * stride + quad * 4);
        add(quad % 4, lane, (codes & 0x0F0F0F0F) << (quad / 4 * 4));
        if constexpr (Bits > 4) {
          add(4 + upper_vector(quad), lane, (codes >> 4 & 0x0F0F0F0F) << upper_bit(quad));
        }
      }
    }
  }

  static uint8_t code(const std::byte* block, int64_t lane, int64_t k) {
    const auto* bytes = reinterpret_cast<const uint8_t*>(block);
    const int quad = static_cast<int>(k / 4);
    const int64_t at = lane * 4 + k % 4;
    int value = bytes[quad % 4 * kVectorBytes + at] >> (quad / 4 * 4) & 15;
    if constexpr (Bits > 4) {
      value |= (bytes[(4 + upper_vector(quad)) * kVectorBytes + at] >> upper_bit(quad) & kUpperMask) << 4;
    }
    return static_cast<uint8_t>(value);
  }
};

template <class S, int Bits>
struct PairPlanes {
  using I = typename S::I;
  static_assert(Bits == 2 || Bits == 3);
  static constexpr int64_t kVectorBytes = 4 * S::kLanes;
  static constexpr int64_t kBytes = Bits * kVectorBytes;

  // sums[m] += codes . x[m] over 32 channels.
  template <int MB>
  [[gnu::always_inline]] static void dot(const uint8_t* codes, const int8_t* x, int64_t ldx, I (&sums)[MB]) {
    half<0>(codes, x, ldx, sums);
    half<4>(codes, x, ldx, sums);
  }

  // Quads q to q + 3.
  template <int q, int MB>
  [[gnu::always_inline]] static void half(const uint8_t* codes, const int8_t* x, int64_t ldx, I (&sums)[MB]) {
    const I pairs = S::load_bytes(codes + q / 4 * kVectorBytes);
    quad<q>(pairs, codes, x, ldx, sums);
    quad<q + 1>(pairs, codes, x, ldx, sums);
    quad<q + 2>(pairs, codes, x, ldx, sums);
    quad<q + 3>(pairs, codes, x, ldx, sums);
  }

  template <int q, int MB>
  [[gnu::always_inline]] static void quad(I pairs, const uint8_t* codes, const int8_t* x, int64_t ldx,
                                          I (&sums)[MB]) {
    I values = S::and_bytes(S::template shift<-2 * (q % 4)>(pairs), 3);
    if constexpr (Bits == 3) {
      const I third = S::load_bytes(codes + 2 * kVectorBytes);
      values = S::or_bits(values, S::and_bytes(S::template shift<2 - q>(third), 4));
    }
#pragma GCC unroll 8
    for (int m = 0; m < MB; ++m) sums[m] = S::dot_quad(sums[m], values, S::broadcast4(x + m * ldx + 4 * q));
  }

  // rows: codes of each lane's channels, `stride` bytes from lane to lane.
  static void store(const uint8_t* rows, int64_t stride, std::byte* out) {
    std::memset(out, 0, kBytes);
    const auto add = [out](int64_t vector, int lane, uint32_t bits) {
      std::byte* const at = out + vector * kVectorBytes + lane * 4;
      const uint32_t sum = load_unaligned<uint32_t>(at) | bits;
      std::memcpy(at, &sum, 4);
    };
    for (int lane = 0; lane < S::kLanes; ++lane) {
      for (int q = 0; q < 8; ++q) {
        const auto codes = load_unaligned<uint32_t>(rows + lane * stride + q * 4);
        add(q / 4, lane, (codes & 0x03030303) << (q % 4 * 2));
        if constexpr (Bits == 3) add(2, lane, (codes >> 2 & 0x01010101) << q);
      }
    }
  }

  static uint8_t code(const std::byte* block, int64_t lane, int64_t k) {
    const auto* bytes = reinterpret_cast<const uint8_t*>(block) + lane * 4 + k % 4;
    const int q = static_cast<int>(k / 4);
    int value = bytes[q / 4 * kVectorBytes] >> (q % 4 * 2) & 3;
    if constexpr (Bits == 3) value |= (bytes[2 * kVectorBytes] >> q & 1) << 2;
    return static_cast<uint8_t>(value);
  }
};
