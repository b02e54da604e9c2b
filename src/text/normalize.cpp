#include "text/normalize.h"

#include <utf8proc.h>

#include <algorithm>
#include <iterator>
#include <vector>

#include "base/error.h"
#include "base/utf8.h"

namespace tandem {
namespace {

using CodePoints = std::vector<utf8proc_int32_t>;

struct Range {
  utf8proc_int32_t first, last;
};

// Marks and compositions assigned after Unicode 9, by whose tables the reference normalizes: to it
// they are starters that compose with nothing. The rest of what is newer behaves so by itself.
constexpr Range kNewerThanUnicode9[] = {
    {0x7FD, 0x7FD},     {0x898, 0x89F},     {0x8CA, 0x8D3},     {0x9FE, 0x9FE},
    {0xC3C, 0xC3C},     {0xD3B, 0xD3C},     {0xEBA, 0xEBA},     {0xECE, 0xECE},
    {0x1715, 0x1715},   {0x1ABF, 0x1ACE},   {0x1DF6, 0x1DFA},   {0xA82C, 0xA82C},
    {0x10D24, 0x10D27}, {0x10EAB, 0x10EAC}, {0x10EFD, 0x10EFF}, {0x10F46, 0x10F50},
    {0x10F82, 0x10F85}, {0x11070, 0x11070}, {0x1133B, 0x1133B}, {0x1145E, 0x1145E},
    {0x11839, 0x1183A}, {0x11930, 0x11930}, {0x11935, 0x11935}, {0x11938, 0x11938},
    {0x1193D, 0x1193E}, {0x11943, 0x11943}, {0x119E0, 0x119E0}, {0x11A34, 0x11A34},
    {0x11A47, 0x11A47}, {0x11A99, 0x11A99}, {0x11D42, 0x11D42}, {0x11D44, 0x11D45},
    {0x11D97, 0x11D97}, {0x11F41, 0x11F42}, {0x16FF0, 0x16FF1}, {0x1E130, 0x1E136},
    {0x1E2AE, 0x1E2AE}, {0x1E2EC, 0x1E2EF}, {0x1E4EC, 0x1E4EF},
};

bool is_newer(utf8proc_int32_t c) {
  const Range* range = std::ranges::lower_bound(kNewerThanUnicode9, c, {}, &Range::last);
  return range != std::end(kNewerThanUnicode9) && c >= range->first;
}

void append_decomposed(uint32_t c, CodePoints& out) {
  utf8proc_int32_t buffer[32];  // no canonical decomposition is longer than 4
  int boundary = 0;
  const auto count = utf8proc_decompose_char(static_cast<utf8proc_int32_t>(c), buffer, 32,
                                             UTF8PROC_DECOMPOSE, &boundary);
  CHECK(count >= 0 && count <= 32, "U+{:04X} decomposes to {}", c, count);
  out.insert(out.end(), buffer, buffer + count);
}

int combining_class(utf8proc_int32_t c) { return utf8proc_get_property(c)->combining_class; }

// Marks between two starters stand in the order of their classes. utf8proc's own loop for this is
// quadratic in the length of such a run.
void reorder_marks(CodePoints& points) {
  for (auto at = points.begin(); at != points.end();) {
    const auto is_starter = [](utf8proc_int32_t c) { return combining_class(c) == 0; };
    const auto begin = std::find_if_not(at, points.end(), is_starter);
    const auto end = std::find_if(begin, points.end(), is_starter);
    std::stable_sort(begin, end, [](utf8proc_int32_t a, utf8proc_int32_t b) {
      return combining_class(a) < combining_class(b);
    });
    at = end;
  }
}

void flush_composed(CodePoints& points, std::string& out) {
  if (points.empty()) return;
  reorder_marks(points);
  const auto options = static_cast<utf8proc_option_t>(UTF8PROC_COMPOSE | UTF8PROC_STABLE);
  const auto count = utf8proc_normalize_utf32(
      points.data(), static_cast<utf8proc_ssize_t>(points.size()), options);
  CHECK(count >= 0, "utf8proc_normalize_utf32: {}", count);
  for (utf8proc_ssize_t i = 0; i < count; ++i) {
    utf8_append(out, static_cast<uint32_t>(points[static_cast<size_t>(i)]));
  }
  points.clear();
}

}  // namespace

bool is_surely_nfc(std::string_view text) {
  return std::ranges::none_of(text, [](char c) { return static_cast<uint8_t>(c) >= 0xCC; });
}

std::string to_nfc(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  CodePoints points;
  while (!text.empty()) {
    const size_t length = utf8_valid_length(text);
    const uint32_t c = length > 0 ? utf8_code_point(text, length) : 0;
    const size_t bytes = std::max<size_t>(length, 1);
    if (length > 0 && !is_newer(static_cast<utf8proc_int32_t>(c))) {
      append_decomposed(c, points);
    } else {
      flush_composed(points, out);
      out.append(text.substr(0, bytes));
    }
    text.remove_prefix(bytes);
  }
  flush_composed(points, out);
  return out;
}

}  // namespace tandem
