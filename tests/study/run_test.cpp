// The study's loop: what a child's death, a second study and a short text do to it.
#include "study/run.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>

#include "base/default_model.h"
#include "base/error.h"

namespace tandem {
namespace {

class RunTest : public testing::Test {
 protected:
  void SetUp() override {
    if (!std::filesystem::exists(default_model())) {
      GTEST_SKIP() << default_model() << " is absent: make study fetches it";
    }
    char name[] = "/tmp/tandem_run_XXXXXX";
    ASSERT_NE(mkdtemp(name), nullptr);
    options_.out_dir = name;
    settings_.profile = find_profile("smoke");
    settings_.model_path = settings_.baseline_path = default_model();
    settings_.model_hash = "0123456789abcdef0";
    settings_.text_hash = "fedcba98765432100";
    settings_.text_path = options_.out_dir / "text.txt";
    settings_.isa = "ref";
    for (const std::string& variant : settings_.profile.variants) {
      settings_.variants.push_back({variant, default_model()});
    }
    std::ofstream text(settings_.text_path);
    for (int i = 0; i < 300; ++i) text << "The " << i << "th sentence of a text made for a test.\n";
  }
  void TearDown() override {
    if (!options_.out_dir.empty()) std::filesystem::remove_all(options_.out_dir);
  }

  StudySettings settings_;
  StudyOptions options_;
};

TEST_F(RunTest, ChildrenThatDieAreNamedAndTheStudyGoesOn) {
  const std::filesystem::path program = options_.out_dir / "dies";
  std::ofstream(program) << "#!/bin/sh\necho 'the reason' >&2\nexit 4\n";
  std::filesystem::permissions(program, std::filesystem::perms::owner_all);
  options_.program = program.string();
  int64_t last_done = -1;
  options_.on_progress = [&](const StudyProgress& progress) {
    EXPECT_EQ(progress.done, last_done + 1);
    last_done = progress.done;
  };
  const StudyResult result = run_study(settings_, options_);
  EXPECT_EQ(result.failures.size(), 6u);  // quality of 3 variants, 3 cells
  EXPECT_EQ(last_done, 6);
  EXPECT_EQ(result.num_measured, 0);
  EXPECT_TRUE(result.records.empty());
  EXPECT_EQ(result.failures[0].text(), "bf16, quality: exited with status 4: the reason");
  EXPECT_EQ(result.failures[0].variant, "bf16");
  EXPECT_FALSE(result.failures[0].no_device);
  EXPECT_TRUE(std::filesystem::exists(options_.out_dir / "records.csv"));
}

TEST_F(RunTest, QualityTasksMayRunSideBySide) {
  const std::filesystem::path program = options_.out_dir / "waits";
  // Each waits until three have begun: one after the other they would give up.
  std::ofstream(program) << "#!/bin/sh\ncd " << options_.out_dir.string()
                         << "\ntouch begun.$$\nfor i in $(seq 200); do\n"
                            "  [ $(ls begun.* | wc -l) -ge 3 ] && exit 5\n  sleep 0.05\ndone\n"
                            "exit 4\n";
  std::filesystem::permissions(program, std::filesystem::perms::owner_all);
  options_.program = program.string();
  options_.num_jobs = 3;
  settings_.profile.batches.clear();  // no speeds
  const StudyResult result = run_study(settings_, options_);
  ASSERT_EQ(result.failures.size(), 3u);
  for (const TaskFailure& failure : result.failures) {
    EXPECT_TRUE(failure.no_device) << failure.text();
  }
}

TEST_F(RunTest, WithoutWindowsSpeedsAloneAreMeasured) {
  options_.program = "/bin/false";
  settings_.profile.num_windows = 0;
  const StudyResult result = run_study(settings_, options_);
  ASSERT_EQ(result.failures.size(), 3u);
  EXPECT_NE(result.failures[0].task.find("batch 1"), std::string::npos) << result.failures[0].task;
}

TEST_F(RunTest, AChildThatPrintsNonsenseHasFailed) {
  options_.program = "/bin/echo";
  const StudyResult result = run_study(settings_, options_);
  EXPECT_EQ(result.failures.size(), 6u);
  EXPECT_NE(result.failures[0].text().find("not valid JSON"), std::string::npos)
      << result.failures[0].text();
}

TEST_F(RunTest, ASecondStudyInTheFolderIsRefused) {
  options_.program = "/bin/false";
  bool tried = false;
  options_.on_progress = [&](const StudyProgress&) {
    if (std::exchange(tried, true)) return;
    StudyOptions second = options_;
    second.on_progress = nullptr;
    EXPECT_THROW(run_study(settings_, second), Error);
  };
  run_study(settings_, options_);
  EXPECT_TRUE(tried);
}

TEST_F(RunTest, AShortTextIsRefused) {
  std::ofstream(settings_.text_path) << "Too short.";
  EXPECT_THROW(run_study(settings_, options_), Error);
}

}  // namespace
}  // namespace tandem
