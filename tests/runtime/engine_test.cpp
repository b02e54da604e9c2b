#include "runtime/engine.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "base/cpu.h"
#include "base/default_model.h"
#include "base/error.h"

namespace tandem {
namespace {

struct Answer {
  std::vector<int32_t> tokens;
  FinishReason finish = FinishReason::none;
};

std::map<uint64_t, Answer> run_all(Engine& engine) {
  std::map<uint64_t, Answer> answers;
  engine.run([&](const TokenEvent& event) {
    Answer& answer = answers[event.request_id];
    EXPECT_EQ(answer.finish, FinishReason::none) << "an event after the last one";
    if (event.token >= 0) answer.tokens.push_back(event.token);
    answer.finish = event.finish;
  });
  return answers;
}

// Arbitrary but plausible prompts of different lengths: a run of ids for each request.
Request make_request(uint64_t id, int64_t num_prompt, int64_t max_tokens) {
  Request request;
  request.id = id;
  request.max_tokens = max_tokens;
  for (int64_t i = 0; i < num_prompt; ++i) {
    request.prompt.push_back(
        static_cast<int32_t>(260 + (i * 37 + static_cast<int64_t>(id) * 911) % 20000));
  }
  return request;
}

class EngineTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    if (!std::filesystem::exists(default_model())) return;
    pool_ = new ThreadPool(usable_cpus());
    const Checkpoint checkpoint = load_checkpoint(default_model());
    model_ = new Model(checkpoint, *pool_, best_isa());
  }
  static void TearDownTestSuite() {
    delete model_;
    delete pool_;
    model_ = nullptr;
    pool_ = nullptr;
  }
  void SetUp() override {
    if (model_ == nullptr) GTEST_SKIP() << "no default model at " << default_model();
  }

  static ThreadPool* pool_;
  static Model* model_;
};

ThreadPool* EngineTest::pool_ = nullptr;
Model* EngineTest::model_ = nullptr;

TEST_F(EngineTest, InterleavedSequencesGiveTheTokensEachGivesAlone) {
  const int64_t lengths[] = {1, 5, 17, 63, 64, 65, 130, 200};
  for (const KvType kv_type : {KvType::bf16, KvType::int8}) {
    SCOPED_TRACE(kv_type_name(kv_type));
    std::map<uint64_t, Answer> alone;
    for (uint64_t id = 0; id < 8; ++id) {
      Engine engine(*model_, {.kv_type = kv_type, .max_context = 512, .max_sequences = 1});
      engine.submit(make_request(id, lengths[id], 24));
      alone.merge(run_all(engine));
    }
    // Short steps, so that prompts are cut at odd places while others decode.
    Engine engine(
        *model_,
        {.kv_type = kv_type, .max_context = 512, .max_sequences = 8, .max_step_tokens = 48});
    for (uint64_t id = 0; id < 8; ++id) engine.submit(make_request(id, lengths[id], 24));
    const auto together = run_all(engine);
    for (uint64_t id = 0; id < 8; ++id) {
      EXPECT_EQ(together.at(id).tokens, alone.at(id).tokens) << "sequence " << id;
      EXPECT_EQ(together.at(id).tokens.size(), 24u);
      EXPECT_EQ(together.at(id).finish, FinishReason::max_tokens);
    }
    EXPECT_EQ(engine.stats().pages_free, engine.stats().pages_total);
    EXPECT_EQ(engine.stats().kv_bytes_used, 0u);
  }
}

TEST_F(EngineTest, SamplingDoesNotDependOnTheNeighbours) {
  const auto request = [](uint64_t id) {
    Request made = make_request(id, 20, 16);
    made.sampling = {.temperature = 0.9f, .top_p = 0.95f, .repetition_penalty = 1.1f, .seed = id};
    return made;
  };
  Engine alone(*model_, {.max_context = 256, .max_sequences = 1});
  alone.submit(request(2));
  Engine together(*model_, {.max_context = 256, .max_sequences = 4});
  for (uint64_t id = 0; id < 4; ++id) together.submit(request(id));
  EXPECT_EQ(run_all(together).at(2).tokens, run_all(alone).at(2).tokens);
}

TEST_F(EngineTest, MoreRequestsThanPagesAllFinish) {
  Engine engine(*model_, {.max_context = 256, .max_sequences = 4, .kv_pages = 5});
  for (uint64_t id = 0; id < 9; ++id) engine.submit(make_request(id, 60 + 15 * (id % 3), 8));
  EXPECT_EQ(engine.stats().waiting, 9);
  const auto answers = run_all(engine);
  ASSERT_EQ(answers.size(), 9u);
  for (const auto& [id, answer] : answers) EXPECT_EQ(answer.tokens.size(), 8u) << id;
  EXPECT_EQ(engine.stats().pages_free, 5);
}

TEST_F(EngineTest, EndsAtTheContextAndAtStopTokens) {
  Engine engine(*model_, {.max_context = 40, .max_sequences = 2});
  engine.submit(make_request(0, 30, 100));
  const Answer full = run_all(engine).at(0);
  EXPECT_EQ(full.tokens.size(), 10u);
  EXPECT_EQ(full.finish, FinishReason::context_full);

  Request stopping = make_request(0, 30, 100);
  stopping.stop_tokens = {full.tokens[4]};
  const auto first = std::ranges::find(full.tokens, full.tokens[4]);
  engine.submit(stopping);
  const Answer stopped = run_all(engine).at(0);
  EXPECT_EQ(stopped.tokens, std::vector<int32_t>(full.tokens.begin(), first));
  EXPECT_EQ(stopped.finish, FinishReason::stop_token);
}

TEST_F(EngineTest, CancelEndsOnlyItsOwn) {
  Engine engine(*model_, {.max_context = 128, .max_sequences = 2});
  for (uint64_t id = 0; id < 3; ++id) engine.submit(make_request(id, 10, 6));
  engine.cancel(2);  // waiting
  engine.cancel(2);
  engine.cancel(77);
  std::map<uint64_t, Answer> answers;
  engine.run([&](const TokenEvent& event) {
    Answer& answer = answers[event.request_id];
    if (event.token >= 0) answer.tokens.push_back(event.token);
    answer.finish = event.finish;
    if (event.request_id == 0 && answer.tokens.size() == 3) engine.cancel(0);
  });
  EXPECT_EQ(answers.at(0).finish, FinishReason::cancelled);
  EXPECT_EQ(answers.at(0).tokens.size(), 3u);
  EXPECT_EQ(answers.at(1).finish, FinishReason::max_tokens);
  EXPECT_EQ(answers.at(1).tokens.size(), 6u);
  EXPECT_EQ(answers.at(2).finish, FinishReason::cancelled);
  EXPECT_TRUE(answers.at(2).tokens.empty());
  EXPECT_EQ(engine.stats().pages_free, engine.stats().pages_total);
}

// The next turn of a conversation: what was said, a token that differs, and more.
Request next_turn(const Request& before, const Answer& answer, uint64_t id, size_t same) {
  Request turn = make_request(id, 12, 20);
  std::vector<int32_t> prompt = before.prompt;
  prompt.insert(prompt.end(), answer.tokens.begin(), answer.tokens.end());
  prompt.resize(same);
  prompt.insert(prompt.end(), turn.prompt.begin(), turn.prompt.end());
  turn.prompt = std::move(prompt);
  return turn;
}

TEST_F(EngineTest, AContinuedRequestGivesTheTokensOfAFreshOne) {
  for (const KvType kv_type : {KvType::bf16, KvType::int8}) {
    SCOPED_TRACE(kv_type_name(kv_type));
    const EngineOptions options{
        .kv_type = kv_type, .max_context = 512, .max_sequences = 1, .max_step_tokens = 48};
    // The beginnings end before, at and after a page's end, in the prompt and in the answer; of the
    // 90 + 30 tokens before, the last was never computed.
    for (const size_t same : {1, 63, 64, 65, 90, 100, 119, 120}) {
      SCOPED_TRACE(same);
      Engine engine(*model_, options);
      Request first = make_request(1, 90, 30);
      first.keep = true;
      engine.submit(first);
      const Answer said = run_all(engine).at(1);
      EXPECT_EQ(engine.stats().kept, 1);
      Request turn = next_turn(first, said, 2, same);
      Engine fresh(*model_, options);
      fresh.submit(turn);
      turn.continues = 1;
      engine.submit(turn);
      int64_t num_reused = -1;
      std::vector<int32_t> tokens;
      engine.run([&](const TokenEvent& event) {
        num_reused = event.num_reused;
        tokens.push_back(event.token);
      });
      EXPECT_EQ(tokens, run_all(fresh).at(2).tokens);
      EXPECT_EQ(num_reused, std::min<int64_t>(static_cast<int64_t>(same), 119));
      EXPECT_EQ(engine.stats().kept, 0);
      EXPECT_EQ(engine.stats().pages_free, engine.stats().pages_total);
    }
  }
}

TEST_F(EngineTest, TheSamePromptAgainComputesItsLastTokenOnly) {
  Engine engine(*model_, {.max_context = 256, .max_sequences = 1});
  Request request = make_request(1, 70, 10);
  request.keep = true;
  engine.submit(request);
  const Answer first = run_all(engine).at(1);
  EXPECT_THROW(engine.submit(request), Error) << "its cache is still there";
  request.id = 2;
  request.continues = 1;
  engine.submit(request);
  std::vector<int32_t> tokens;
  engine.run([&](const TokenEvent& event) {
    EXPECT_EQ(event.num_reused, 69);
    tokens.push_back(event.token);
  });
  EXPECT_EQ(tokens, first.tokens);
}

TEST_F(EngineTest, ACancelledRequestIsKeptAsFarAsItCame) {
  Engine engine(*model_, {.max_context = 256, .max_sequences = 1, .max_step_tokens = 32});
  Request request = make_request(1, 100, 10);
  request.keep = true;
  engine.submit(request);
  const TokenSink ignore = [](const TokenEvent&) {};
  engine.step(ignore);
  engine.cancel(1);
  engine.run(ignore);
  EXPECT_EQ(engine.stats().kept, 1);
  request.id = 2;
  request.continues = 1;
  Engine fresh(*model_, {.max_context = 256, .max_sequences = 1});
  fresh.submit(request);
  engine.submit(request);
  std::vector<int32_t> tokens;
  engine.run([&](const TokenEvent& event) {
    EXPECT_EQ(event.num_reused, 32);
    tokens.push_back(event.token);
  });
  EXPECT_EQ(tokens, run_all(fresh).at(2).tokens);
}

TEST_F(EngineTest, RefusesWithBothNumbers) {
  Engine engine(*model_, {.max_context = 64, .max_sequences = 1});
  const auto refusal = [&](const Request& request) -> std::string {
    try {
      engine.submit(request);
    } catch (const Error& error) {
      EXPECT_EQ(error.kind, ErrorKind::usage);
      return error.what();
    }
    return "accepted";
  };
  const std::string too_long = refusal(make_request(0, 64, 1));
  EXPECT_NE(too_long.find("64 tokens"), std::string::npos) << too_long;
  EXPECT_NE(too_long.find("at most 63"), std::string::npos) << too_long;
  EXPECT_NE(refusal(make_request(0, 0, 1)).find("empty"), std::string::npos);
  EXPECT_NE(refusal(make_request(0, 3, 0)).find("max tokens is 0"), std::string::npos);
  Request outside = make_request(0, 3, 1);
  outside.prompt[1] = static_cast<int32_t>(model_->config().vocab_size);
  EXPECT_NE(refusal(outside).find("position 1"), std::string::npos);
  EXPECT_EQ(refusal(make_request(0, 63, 1)), "accepted");
  EXPECT_NE(refusal(make_request(0, 63, 1)).find("already"), std::string::npos);
  EXPECT_EQ(run_all(engine).at(0).tokens.size(), 1u);
  EXPECT_THROW(Engine(*model_, {.max_context = 1 << 30}), Error);
  EXPECT_THROW(Engine(*model_, {.kv_pages = int64_t{1} << 30}), Error);
}

TEST_F(EngineTest, ScorerAgreesWithTheEngine) {
  Engine engine(*model_, {.max_context = 512, .max_sequences = 1});
  const Request request = make_request(0, 150, 40);
  engine.submit(request);
  const Answer answer = run_all(engine).at(0);
  std::vector<int32_t> tokens = request.prompt;
  tokens.insert(tokens.end(), answer.tokens.begin(), answer.tokens.end());

  Scorer scorer(*model_, KvType::bf16, 256);
  const size_t V = static_cast<size_t>(model_->config().vocab_size);
  for (int round = 0; round < 2; ++round) {  // the cache is used again
    int64_t expected_position = 149;
    scorer.score(tokens, 149, [&](int64_t position, const float* logits) {
      EXPECT_EQ(position, expected_position++);
      if (position + 1 == static_cast<int64_t>(tokens.size())) return;
      const auto best = std::max_element(logits, logits + V) - logits;
      EXPECT_EQ(best, tokens[position + 1]) << "position " << position;
    });
    EXPECT_EQ(expected_position, static_cast<int64_t>(tokens.size()));
  }
}

// Dynamic RoPE turns every key of a prompt by the whole prompt's length: beyond the original
// context nothing of a shorter prompt's cache holds.
TEST(EngineDynamicRope, ContinuesWithinTheOriginalContextOnly) {
  const Checkpoint checkpoint =
      load_checkpoint(std::filesystem::path(TANDEM_TEST_DIR) / "golden/families/llama_dynamic");
  const int64_t original = checkpoint.config.rope_original_context;
  ASSERT_GT(checkpoint.config.max_context, original + 4);
  ThreadPool pool(1);
  const Model model(checkpoint, pool, "ref");
  const auto V = static_cast<int32_t>(checkpoint.config.vocab_size);
  for (const int64_t length : {original - 2, original + 2}) {
    const EngineOptions options{.max_sequences = 1};
    Request first;
    for (int32_t i = 0; i < original / 2; ++i) first.prompt.push_back(i * 7 % V);
    first.max_tokens = 1;
    first.keep = true;
    Request second = first;
    for (int64_t i = original / 2; i < length; ++i) {
      second.prompt.push_back(static_cast<int32_t>(i * 11 % V));
    }
    second.id = 1;
    Engine fresh(model, options), engine(model, options);
    fresh.submit(second);
    engine.submit(first);
    run_all(engine);
    second.continues = 0;
    engine.submit(second);
    TokenEvent last;
    engine.run([&](const TokenEvent& event) { last = event; });
    EXPECT_EQ(last.num_reused, length <= original ? original / 2 : 0);
    EXPECT_EQ(last.token, run_all(fresh).at(1).tokens.back());
  }
}

}  // namespace
}  // namespace tandem
