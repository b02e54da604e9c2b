#include "study/evals/documents.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "base/error.h"

namespace tandem {
namespace {

// Bytes of the white space that `text` begins with, as Python's \s has it; 0: none.
size_t space_bytes(std::string_view text) {
  if (text.empty()) return 0;
  const auto c = static_cast<unsigned char>(text[0]);
  if (c == ' ' || (c >= '\t' && c <= '\r') || (c >= 0x1c && c <= 0x1f)) return 1;
  for (const char* space : {"\u0085", "\u00a0"}) {
    if (text.starts_with(space)) return 2;
  }
  for (const char* space :
       {"\u1680", "\u2000", "\u2001", "\u2002", "\u2003", "\u2004", "\u2005", "\u2006", "\u2007",
        "\u2008", "\u2009", "\u200a", "\u2028", "\u2029", "\u202f", "\u205f", "\u3000"}) {
    if (text.starts_with(space)) return 3;
  }
  return 0;
}

std::string_view stripped(std::string_view text) {
  while (const size_t bytes = space_bytes(text)) text.remove_prefix(bytes);
  for (bool found = true; found;) {
    found = false;
    for (const size_t bytes : {1, 2, 3}) {
      if (text.size() < bytes || space_bytes(text.substr(text.size() - bytes)) != bytes) continue;
      text.remove_suffix(bytes);
      found = true;
    }
  }
  return text;
}

std::string replaced(std::string_view text, std::string_view from, std::string_view to) {
  std::string out;
  for (size_t at; (at = text.find(from)) != std::string_view::npos;) {
    out.append(text.substr(0, at)).append(to);
    text.remove_prefix(at + from.size());
  }
  return out.append(text);
}

// Without the space inside each pair of `open` and the first `close` after it.
std::string tightened(std::string_view text, char open, char close) {
  std::string out;
  for (;;) {
    const size_t begin = text.find(open);
    const size_t end = begin == std::string_view::npos ? begin : text.find(close, begin + 1);
    if (end == std::string_view::npos) return out.append(text);
    out.append(text.substr(0, begin + 1)).append(stripped(text.substr(begin + 1, end - begin - 1)));
    out += close;
    text.remove_prefix(end + 1);
  }
}

// " = Title = ", but none of the deeper " = = Title = = ".
bool is_heading(std::string_view line) {
  const std::string joined = replaced(replaced(line, "= = =", "==="), "= =", "==");
  const std::string_view bare = stripped(joined);
  return bare.starts_with("= ") && bare.ends_with(" =");
}

// The mean ratio sum(values) / sum(sizes) and its error over documents (delta method).
MeanError ratio(const std::vector<double>& values, const std::vector<double>& sizes) {
  double value = 0, size = 0;
  for (const double v : values) value += v;
  for (const double s : sizes) size += s;
  const double mean = value / size;
  double squares = 0;
  for (size_t i = 0; i < values.size(); ++i) {
    squares += (values[i] - mean * sizes[i]) * (values[i] - mean * sizes[i]);
  }
  const auto n = static_cast<double>(values.size());
  return {mean, values.size() < 2 ? 0 : std::sqrt(squares * n / (n - 1)) / size};
}

}  // namespace

std::vector<std::string> split_pages(std::string_view text) {
  std::vector<std::string> pages;
  std::string page;
  bool is_first_line = true;
  const auto end_page = [&] {
    if (!stripped(page).empty()) pages.push_back(page);
    page.clear();
    is_first_line = true;
  };
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    const std::string_view line = text.substr(begin, end - begin);
    if (is_heading(line)) end_page();
    if (!is_first_line) page += '\n';
    page += line;
    is_first_line = false;
    begin = end + 1;
  }
  end_page();
  return pages;
}

std::string detokenize_page(std::string_view page) {
  std::string text(page);
  const auto replace = [&](std::initializer_list<std::pair<const char*, const char*>> rules) {
    for (const auto& [from, to] : rules) text = replaced(text, from, to);
  };
  replace({{"s '", "s'"},
           {" @-@ ", "-"},
           {" @,@ ", ","},
           {" @.@ ", "."},
           {" : ", ": "},
           {" ; ", "; "},
           {" . ", ". "},
           {" ! ", "! "},
           {" ? ", "? "},
           {" , ", ", "}});
  for (const char* pair : {"()", "[]", "{}", "\"\"", "''"}) {
    text = tightened(text, pair[0], pair[1]);
  }
  replace({{"= = = =", "===="},
           {"= = =", "==="},
           {"= =", "=="},
           {" \u00b0 ", "\u00b0"},
           {" \n", "\n"},
           {"\n ", "\n"},
           {" N ", " 1 "},
           {" 's", "'s"}});
  return text;
}

int64_t count_words(std::string_view page) {
  int64_t words = 1;
  while (!page.empty()) {
    if (space_bytes(page) == 0) {
      page.remove_prefix(1);
      continue;
    }
    ++words;
    while (const size_t bytes = space_bytes(page)) page.remove_prefix(bytes);
  }
  return words;
}

std::vector<ScoredSpan> rolling_windows(const std::vector<int32_t>& tokens, int32_t prefix,
                                        int64_t max_length) {
  CHECK(max_length > 0, "max_length {}", max_length);
  std::vector<ScoredSpan> windows;
  const auto size = static_cast<int64_t>(tokens.size());
  for (int64_t predicted = 0; predicted < size;) {
    const int64_t end = std::min(size, predicted + max_length);
    const int64_t begin = std::max<int64_t>(end - max_length - 1, -1);  // -1: the prefix
    ScoredSpan window;
    if (begin < 0) window.tokens.push_back(prefix);
    window.tokens.insert(window.tokens.end(), tokens.begin() + std::max<int64_t>(begin, 0),
                         tokens.begin() + end);
    window.first = predicted - 1 - begin;  // the position that predicts the first new token
    windows.push_back(std::move(window));
    predicted = end;
  }
  return windows;
}

Document make_document(std::string_view page, const Tokenizer& tokenizer, bool add_bos,
                       int64_t max_length) {
  const int32_t prefix = tokenizer.bos_id() >= 0 ? tokenizer.bos_id() : tokenizer.eos_id();
  if (prefix < 0) {
    fail(ErrorKind::usage,
         "protocol D: the model has neither a BOS nor an EOS to begin a page with");
  }
  std::vector<int32_t> tokens = tokenizer.encode(detokenize_page(page));
  if (add_bos) tokens.insert(tokens.begin(), prefix);
  return {rolling_windows(tokens, prefix, max_length), count_words(page),
          static_cast<int64_t>(page.size())};
}

DocumentsResult evaluate_documents(const LogitSource& model, const std::vector<Document>& documents,
                                   int64_t V, const EvalProgress& progress) {
  DocumentsResult result;
  std::vector<double> nll, words, bytes;
  for (const Document& document : documents) {
    double sum = 0;
    for (const ScoredSpan& window : document.windows) {
      const std::span<const int32_t> read(window.tokens.data(), window.tokens.size() - 1);
      model(read, window.first, [&](int64_t position, const float* logits) {
        const int32_t next = window.tokens[static_cast<size_t>(position + 1)];
        sum += log_sum_exp(logits, V) - static_cast<double>(logits[next]);
        ++result.num_scored;
      });
      ++result.num_windows;
    }
    nll.push_back(sum);
    words.push_back(static_cast<double>(document.num_words));
    bytes.push_back(static_cast<double>(document.num_bytes));
    if (progress) progress(nll.size(), documents.size());
  }
  result.num_documents = static_cast<int64_t>(documents.size());
  const MeanError by_word = ratio(nll, words), by_byte = ratio(nll, bytes);
  const auto perplexity_of = [](const MeanError& log) {
    return MeanError{std::exp(log.mean), std::exp(log.mean) * log.error};
  };
  result.word_perplexity = perplexity_of(by_word);
  result.byte_perplexity = perplexity_of(by_byte);
  result.bits_per_byte = {by_byte.mean / std::numbers::ln2, by_byte.error / std::numbers::ln2};
  return result;
}

}  // namespace tandem
