// The store keeps each record once, whatever happens to its writer.
#include "study/record_store.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sqlite3.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <set>
#include <thread>

#include "base/error.h"

namespace tandem {
namespace {

class RecordStoreTest : public testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/tandem_store_XXXXXX";
    ASSERT_NE(mkdtemp(name), nullptr);
    dir_ = name;
  }
  void TearDown() override { std::filesystem::remove_all(dir_); }
  std::filesystem::path file() const { return dir_ / "records.sqlite"; }

  std::filesystem::path dir_;
};

Record record_of(int64_t batch) {
  Record record;
  record.study_id = "study";
  record.cell = {"int8", "bf16", batch};
  record.decode_tokens_per_second.values = {100.0 + static_cast<double>(batch)};
  return record;
}

TEST_F(RecordStoreTest, InsertsOnceAndLoadsInOrder) {
  RecordStore store(file());
  EXPECT_EQ(store.last_study_id(), "");
  EXPECT_TRUE(store.insert(record_of(2)));
  EXPECT_TRUE(store.insert(record_of(1)));
  Record other = record_of(2);
  other.decode_tokens_per_second.values = {1};
  EXPECT_FALSE(store.insert(other));
  EXPECT_TRUE(store.contains("study", {"int8", "bf16", 2}));
  EXPECT_FALSE(store.contains("study", {"int8", "bf16", 4}));
  EXPECT_FALSE(store.contains("another", {"int8", "bf16", 2}));
  const std::vector<Record> records = store.load("study");
  ASSERT_EQ(records.size(), 2u);
  EXPECT_EQ(records[0].cell.batch, 2);
  EXPECT_EQ(records[0].decode_tokens_per_second.values, std::vector<double>{102});
  EXPECT_EQ(store.load().size(), 2u);
  EXPECT_EQ(store.last_study_id(), "study");
}

TEST_F(RecordStoreTest, QualityReachesEveryBatch) {
  RecordStore store(file());
  store.insert(record_of(1));
  store.insert(record_of(2));
  EXPECT_FALSE(store.quality("study", "int8", "bf16").has_value());
  Quality quality;
  quality.perplexity = 12;
  store.put_quality("study", "int8", "bf16", quality);
  quality.perplexity = 13;
  store.put_quality("study", "int8", "bf16", quality);
  EXPECT_EQ(store.quality("study", "int8", "bf16")->perplexity, 13);
  for (const Record& record : store.load("study")) EXPECT_EQ(record.quality.perplexity, 13);
}

TEST_F(RecordStoreTest, EraseForgetsOneStudy) {
  RecordStore store(file());
  store.insert(record_of(1));
  Record other = record_of(1);
  other.study_id = "other";
  store.insert(other);
  store.erase("study");
  EXPECT_TRUE(store.load("study").empty());
  EXPECT_EQ(store.load("other").size(), 1u);
}

TEST_F(RecordStoreTest, AKilledWriterLosesAndDoublesNothing) {
  constexpr int64_t kRecords = 400;
  int64_t acknowledged = 0;
  for (int attempt = 0; attempt < 4; ++attempt) {
    int ends[2];
    ASSERT_EQ(pipe(ends), 0);
    const pid_t pid = fork();
    ASSERT_GE(pid, 0);
    if (pid == 0) {
      RecordStore store(file());
      for (int64_t batch = 1; batch <= kRecords; ++batch) {
        if (store.contains("study", {"int8", "bf16", batch})) continue;
        if (store.insert(record_of(batch)) && write(ends[1], &batch, sizeof batch) < 0) _exit(1);
      }
      _exit(0);
    }
    close(ends[1]);
    // Killed in the middle of its work, except the last, which may finish.
    for (int n = 0; n < 60; ++n) {
      int64_t batch = 0;
      if (read(ends[0], &batch, sizeof batch) != sizeof batch) break;
      acknowledged = std::max(acknowledged, batch);
    }
    if (attempt < 3) kill(pid, SIGKILL);
    int64_t batch = 0;
    while (read(ends[0], &batch, sizeof batch) == sizeof batch) {
      acknowledged = std::max(acknowledged, batch);
    }
    close(ends[0]);
    int status = 0;
    ASSERT_EQ(waitpid(pid, &status, 0), pid);
    const std::vector<Record> records = RecordStore(file()).load("study");
    std::set<int64_t> batches;
    for (const Record& record : records) batches.insert(record.cell.batch);
    EXPECT_EQ(batches.size(), records.size());
    EXPECT_GE(static_cast<int64_t>(records.size()), acknowledged);
  }
  EXPECT_EQ(static_cast<int64_t>(RecordStore(file()).load("study").size()), kRecords);
}

TEST_F(RecordStoreTest, DamagedAndForeignFilesAreRefusedByName) {
  const auto message = [&] {
    try {
      RecordStore store(file());
      return std::string("accepted");
    } catch (const Error& error) {
      EXPECT_EQ(error.kind, ErrorKind::bad_file);
      return std::string(error.what());
    }
  };
  std::ofstream(file()) << "this is a text file, not a database, and long enough to be looked at";
  EXPECT_NE(message().find("records.sqlite: damaged"), std::string::npos) << message();

  std::filesystem::remove(file());
  sqlite3* db = nullptr;
  ASSERT_EQ(sqlite3_open(file().c_str(), &db), SQLITE_OK);
  sqlite3_exec(db, "CREATE TABLE songs (title TEXT)", nullptr, nullptr, nullptr);
  sqlite3_close(db);
  const auto size = std::filesystem::file_size(file());
  EXPECT_NE(message().find("another program"), std::string::npos) << message();
  EXPECT_EQ(std::filesystem::file_size(file()), size);

  std::filesystem::remove(file());
  {
    RecordStore store(file());
    for (int64_t batch = 1; batch <= 100; ++batch) store.insert(record_of(batch));
  }
  {
    std::fstream raw(file(), std::ios::in | std::ios::out | std::ios::binary);
    raw.seekp(4096);
    raw << std::string(8192, '\xA5');
  }
  EXPECT_NE(message().find("records.sqlite"), std::string::npos);
}

}  // namespace
}  // namespace tandem
