// Protocol D, lm-eval's wikitext: a text -> pages, each read from its first token to its last in
// windows of the whole context, and figures by the word, byte and bit of the page as it was before
// its spaces were put right.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "study/evals/evaluate.h"
#include "study/evals/protocol.h"

namespace tandem {

// The pages of a wikitext file, cut before each heading of the first level (" = Title = "); a text
// without one is one page.
std::vector<std::string> split_pages(std::string_view text);
// The page as it reads: "@-@" joined, no space before punctuation or inside brackets and quotes.
std::string detokenize_page(std::string_view page);
// Runs of white space, plus one: what lm-eval divides by.
int64_t count_words(std::string_view page);

// Every token predicted once: `prefix` and the first tokens, then windows of at most max_length
// that begin with the last token predicted; the last one is filled up with context from the left.
std::vector<ScoredSpan> rolling_windows(const std::vector<int32_t>& tokens, int32_t prefix,
                                        int64_t max_length);

struct Document {
  std::vector<ScoredSpan> windows;
  int64_t num_words = 0, num_bytes = 0;
};
// prefix: the BOS, or the EOS where there is none; throws usage when there is neither. add_bos puts
// a BOS in front of the tokens too, as lm-eval's tokenizers do.
Document make_document(std::string_view page, const Tokenizer& tokenizer, bool add_bos,
                       int64_t max_length);

struct DocumentsResult {
  int64_t num_documents = 0, num_windows = 0, num_scored = 0;
  // exp(-sum / words), exp(-sum / bytes), -sum / (bytes ln 2); their errors take a page as the unit
  // and are 0 for one page.
  MeanError word_perplexity, byte_perplexity, bits_per_byte;
};
DocumentsResult evaluate_documents(const LogitSource& model, const std::vector<Document>& documents,
                                   int64_t V, const EvalProgress& progress);

}  // namespace tandem
