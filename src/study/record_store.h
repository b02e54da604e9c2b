// The records of a study in one SQLite file. An insert is one transaction in a write-ahead log: a
// kill at any point neither loses nor doubles a record.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "study/record.h"

namespace tandem {

class RecordStore {
 public:
  // Opens or creates the file. Throws bad_file naming it when it is damaged, no database, another
  // program's database or of another schema; system when it cannot be opened or written.
  explicit RecordStore(const std::filesystem::path& path);
  ~RecordStore();
  RecordStore(RecordStore&&) noexcept;

  // False, and nothing changes, when the study already has this cell.
  bool insert(const Record& record);
  bool contains(const std::string& study_id, const CellKey& cell) const;

  // Quality is measured once for a variant and KV type and belongs to its records of every batch:
  // records that are loaded carry what was put here last.
  void put_quality(const std::string& study_id, const std::string& variant, const std::string& kv,
                   const Quality& quality);
  std::optional<Quality> quality(const std::string& study_id, const std::string& variant,
                                 const std::string& kv) const;

  // In order of insertion. An empty study_id loads the records of all studies in the file.
  std::vector<Record> load(const std::string& study_id = "") const;
  // The study of the record inserted last; empty when there is none.
  std::string last_study_id() const;
  void erase(const std::string& study_id);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace tandem
