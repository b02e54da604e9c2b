// Plans hold every cell once, in an order that the seed alone decides; prompts likewise.
#include "study/plan.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <set>

#include "base/error.h"
#include "study/task.h"
#include "study/workload.h"

namespace tandem {
namespace {

TEST(Plan, EveryCellExactlyOnce) {
  for (const char* name : {"smoke", "quick", "full"}) {
    const Profile profile = find_profile(name);
    const std::vector<CellKey> cells = ordered_cells(profile, 1);
    EXPECT_EQ(std::set<CellKey>(cells.begin(), cells.end()).size(), cells.size());
    EXPECT_EQ(cells.size(), profile.variants.size() * profile.kv.size() * profile.batches.size());
  }
  EXPECT_EQ(ordered_cells(find_profile("quick"), 1).size(), 32u);
  EXPECT_EQ(ordered_cells(find_profile("smoke"), 1).size(), 3u);
  EXPECT_THROW(find_profile("slow"), Error);
}

TEST(Plan, TheSeedDecidesTheOrder) {
  const Profile profile = find_profile("quick");
  EXPECT_EQ(ordered_cells(profile, 7), ordered_cells(profile, 7));
  EXPECT_NE(ordered_cells(profile, 7), ordered_cells(profile, 8));
  EXPECT_FALSE(std::ranges::is_sorted(ordered_cells(profile, 7)));
}

TEST(Plan, TheIdNamesSettingsNotTheSelection) {
  StudySettings settings;
  settings.profile = find_profile("quick");
  settings.model_hash = "m";
  const std::string id = study_id(settings);
  settings.profile.variants = {"bf16"};
  settings.profile.batches = {1};
  EXPECT_EQ(study_id(settings), id);
  settings.threads = 2;
  EXPECT_NE(study_id(settings), id);
  settings.threads = 1;
  settings.model_hash = "n";
  EXPECT_NE(study_id(settings), id);
  settings.model_hash = "m";
  settings.questions = TaskFile{"hellaswag", "items.txt", 200};
  EXPECT_NE(study_id(settings), id);
}

TEST(Workload, RowsDifferAndDependOnSeedAndRepetitionOnly) {
  std::vector<int32_t> text(5000);
  std::iota(text.begin(), text.end(), 0);
  const auto rows = prompt_rows(text, 8, 128, 3, 0);
  ASSERT_EQ(rows.size(), 8u);
  std::set<int32_t> places;
  for (const auto& row : rows) {
    ASSERT_EQ(row.size(), 128u);
    EXPECT_EQ(row.back(), row.front() + 127);
    places.insert(row.front());
  }
  EXPECT_EQ(places.size(), 8u);
  EXPECT_EQ(prompt_rows(text, 8, 128, 3, 0), rows);
  EXPECT_NE(prompt_rows(text, 8, 128, 3, 1), rows);
  EXPECT_NE(prompt_rows(text, 8, 128, 4, 0), rows);
  EXPECT_EQ(sample_questions().size(), 4u);
}

TEST(Workload, AShortTextIsRefused) {
  const std::vector<int32_t> text(130);
  EXPECT_THROW(prompt_rows(text, 8, 128, 1, 0), Error);
  EXPECT_THROW(prompt_rows({}, 1, 128, 1, 0), Error);
  EXPECT_EQ(prompt_rows(text, 1, 128, 1, 0).size(), 1u);
}

TEST(Task, JsonBothWays) {
  Task task;
  task.is_quality = true;
  task.checkpoint = "/models/a b";
  task.kv = {"bf16", "int8"};
  task.num_windows = 8;
  task.meter.power_command = "echo '1'";
  task.record.cell = {"int8", "bf16", 2};
  const std::string text = dump_json(to_json(task));
  EXPECT_EQ(dump_json(to_json(task_from_json(parse_json(text, "task")))), text);
  EXPECT_THROW(task_from_json(parse_json("{}", "task")), Error);
  EXPECT_THROW(kv_type_of("fp4"), Error);
}

}  // namespace
}  // namespace tandem
